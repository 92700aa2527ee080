//! `polylance model`

use clap::Subcommand;
use polylance_backend::{Backend, TokenizeSpec};
use polylance_encoder::{EmbeddingDefaults, LoadReport, ModelConfig, TokenizerSettings, TruncationSide};
use polylance_engine::models;
use polylance_schema::Chunking;
use polylance_worker::DevicePool;
use serde::Serialize;

use crate::{
    args::ComputeArgs,
    error::Result,
    exit::ExitStatus,
    output::{Printer, thousands},
};

/// Inspect models
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
}

/// Load a model and report its settings, and missing or unused weights
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
struct Check {
    /// Model: `builtin:multilingual-e5-small`, a folder or .gguf file (local, s3://, gs:// or az://), or a hub name
    #[arg(value_name = "MODEL")]
    model: String,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  polylance model check builtin:multilingual-e5-small
  polylance model check ./xlm-roberta-xl --json | jq .weights.unused
  HF_HUB_OFFLINE=1 polylance model check intfloat/multilingual-e5-base";

/// Maximum number of tensors that are named; the rest is counted.
const MAX_NAMED_TENSORS: usize = 8;

#[derive(Serialize)]
struct Checked<'a> {
    model: &'a str,
    config: &'a ModelConfig,
    defaults: &'a EmbeddingDefaults,
    dim: usize,
    devices: &'a [String],
    weights: &'a LoadReport,
    weights_hash: String,
    tokenizer_hash: String,
    tokenizer_settings: TokenizerSettings,
    unused_settings: &'a [String],
    test_tokens: usize,
    test_norm: f64,
}

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let Command::Check(args) = args.command;
    let files = models::find(&args.model).await?;
    let pool = models::open(&files, &args.compute.select()?, None).await?;
    let (test_tokens, test_norm) = embed_test_sentence(&pool, &files.defaults().prompts.query).await?;
    let checked = Checked {
        model: files.name(),
        config: files.config(),
        defaults: files.defaults(),
        dim: pool.info().dim,
        devices: &pool.info().devices,
        weights: pool.report(),
        weights_hash: files.weights_hash()?,
        tokenizer_hash: files.tokenizer_hash()?,
        tokenizer_settings: files.tokenizer_settings(),
        unused_settings: files.unused_settings(),
        test_tokens,
        test_norm,
    };
    if args.json {
        printer.json(&checked)?;
    } else {
        print(&checked, printer)?;
    }
    if !(checked.test_norm.is_finite() && checked.test_norm > 0.0) {
        anyhow::bail!("the vector of a test sentence has length {}: the weights are damaged", checked.test_norm);
    }
    Ok(ExitStatus::Done)
}

/// Embeds a sentence; returns its number of tokens and the length of its vector.
async fn embed_test_sentence(pool: &DevicePool, prefix: &str) -> Result<(usize, f64)> {
    let chunking = Chunking::Truncate { max_tokens: pool.info().max_tokens };
    let spec = TokenizeSpec { prefix: prefix.to_owned(), chunking };
    let chunks = pool.tokenize(vec!["Hello world, ça va? 你好".to_owned()], &spec).await?;
    let ids: Vec<_> = chunks.into_iter().flatten().map(|chunk| chunk.input_ids).collect();
    let tokens = ids.iter().map(Vec::len).sum();
    let vector = pool.encode(ids).await?.values;
    Ok((tokens, vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()))
}

fn print(checked: &Checked<'_>, printer: &mut Printer) -> Result<()> {
    let Checked { config, defaults, weights, .. } = checked;
    let pooling = format!("{:?}", defaults.pooling).to_lowercase();
    let normalized = if defaults.normalize { "normalized" } else { "not normalized" };
    let streamed = if weights.streaming.is_some() { ", streamed by layers" } else { "" };
    let mut fields = vec![
        ("model", checked.model.to_owned()),
        ("kind", config.kind.model_type().to_owned()),
        (
            "sizes",
            format!(
                "{} layers, hidden {}, {} heads, feed-forward {}, vocabulary {}",
                config.num_hidden_layers,
                thousands(config.hidden_size as u64),
                config.num_attention_heads,
                thousands(config.intermediate_size as u64),
                thousands(config.vocab_size as u64)
            ),
        ),
        ("parameters", thousands(weights.parameters)),
        ("weights", format!("{}, computed in {}{streamed}", weights.stored_dtype, weights.compute_dtype)),
        ("vectors", format!("{} dimensions, {pooling} pooling, {normalized}", checked.dim)),
        ("prompts", format!("passage {:?}, query {:?}", defaults.prompts.passage, defaults.prompts.query)),
        ("limit", format!("{} tokens (the positions allow {})", defaults.max_tokens, config.max_tokens())),
        ("devices", checked.devices.join(", ")),
        ("missing", tensors(&weights.missing)),
        ("unused", tensors(&weights.unused)),
        ("test", format!("{} tokens, a vector of length {:.4}", checked.test_tokens, checked.test_norm)),
    ];
    let settings = checked.tokenizer_settings;
    let texts = [
        settings.lowercase.then_some("lowercased"),
        (settings.truncation_side == TruncationSide::Left).then_some("truncated on the left"),
    ];
    let texts: Vec<&str> = texts.into_iter().flatten().collect();
    if !texts.is_empty() {
        fields.push(("texts", texts.join(", ")));
    }
    if !checked.unused_settings.is_empty() {
        fields.push(("ignored", checked.unused_settings.join(", ")));
    }
    printer.fields(&fields)?;
    Ok(())
}

fn tensors(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown = names.iter().take(MAX_NAMED_TENSORS).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > MAX_NAMED_TENSORS {
        format!("{shown} and {} more", names.len() - MAX_NAMED_TENSORS)
    } else {
        shown
    }
}
