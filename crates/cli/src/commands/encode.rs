//! `polylance encode`

use anyhow::{Context, bail};
use polylance_backend::{Backend, TokenizeSpec};
use polylance_engine::models;
use polylance_schema::Chunking;
use polylance_worker::DevicePool;
use serde::Serialize;

use crate::{args::ModelArgs, error::Result, exit::ExitStatus, output::Printer, stdin::lines};

/// Maximum number of lines that are encoded together.
const MAX_BATCH_LINES: usize = 256;

/// Embed lines from stdin; one JSON object per line on stdout, in order
///
/// Each object is `{"n_tokens": …, "truncated": …, "embedding": […]}`. A line longer than the model's limit is cut
/// there and has `"truncated": true`. An empty line is a text too: its vector is that of the special tokens. No prefix
/// is added by default.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to put before each line
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,
}

const AFTER_HELP: &str = "\
Examples:
  echo 'ça va?' | polylance encode --prefix 'query: '
  polylance encode --model intfloat/multilingual-e5-base < lines.txt > vectors.jsonl";

#[derive(Serialize)]
struct Encoded<'v> {
    n_tokens: usize,
    truncated: bool,
    embedding: &'v [f32],
}

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let pool = models::open(&args.model.files().await?, &args.model.compute.select()?, None).await?;
    let chunking = Chunking::Truncate { max_tokens: pool.info().max_tokens };
    let spec = TokenizeSpec { prefix: args.prefix, chunking };

    let mut lines = lines(MAX_BATCH_LINES);
    let mut waiting = Vec::with_capacity(MAX_BATCH_LINES);
    let mut done = 0;
    while lines.recv_many(&mut waiting, MAX_BATCH_LINES).await > 0 {
        // The lines before a bad one are still encoded.
        let bad = waiting.iter().position(Result::is_err).map(|at| waiting.split_off(at));
        let texts: Vec<String> = waiting.drain(..).collect::<Result<_>>()?;
        let (first, last) = (done + 1, done + texts.len());
        encode(texts, &pool, &spec, printer).await.with_context(|| format!("lines {first} to {last} of stdin"))?;
        done = last;
        if let Some(error) = bad.and_then(|bad| bad.into_iter().next()) {
            error?;
        }
    }
    Ok(ExitStatus::Done)
}

async fn encode(texts: Vec<String>, pool: &DevicePool, spec: &TokenizeSpec, printer: &mut Printer) -> Result<()> {
    if texts.is_empty() {
        return Ok(());
    }
    let rows = texts.len();
    let documents = pool.tokenize(texts, spec).await?;
    let chunks: Vec<_> = documents.into_iter().filter_map(|chunks| chunks.into_iter().next()).collect();
    if chunks.len() != rows {
        bail!("the tokenizer returned {} inputs for {rows} lines", chunks.len());
    }
    let shapes: Vec<_> = chunks.iter().map(|chunk| (chunk.input_ids.len(), chunk.truncated)).collect();
    let embeddings = pool.encode(chunks.into_iter().map(|chunk| chunk.input_ids).collect()).await?;
    for ((n_tokens, truncated), embedding) in shapes.into_iter().zip(embeddings.values.chunks(embeddings.dim.max(1))) {
        printer.json(&Encoded { n_tokens, truncated, embedding })?;
    }
    Ok(printer.flush()?)
}
