//! `polylance bench`

use std::{fs, io::BufRead, path::PathBuf, time::Instant};

use anyhow::Context;
use arrow::array::AsArray;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use polylance_backend::{Backend, Embeddings, TokenizeSpec};
use polylance_engine::models;
use polylance_schema::{Chunking, Dtype};
use polylance_worker::{BenchReport, DevicePool};
use serde::{Deserialize, Serialize};

use crate::{
    args::ModelArgs,
    error::Result,
    exit::ExitStatus,
    output::{self, Printer, atomic_file::write_atomically, thousands},
};

/// Measure a model's throughput on this machine, and its share of the hardware's peak
///
/// The texts are articles of the built-in corpus, tokenized beforehand; loading the model is not counted. The peak is
/// what the CPU kernels reach at the same time without reading from memory; the peak of a GPU is not measured.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Number of texts
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    texts: u64,
    /// File with token ids to encode in place of texts: one JSON object `{"input_ids": [0, 5, 2]}` per line
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    ids: Option<PathBuf>,
    /// Number of rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Maximum number of tokens in a device batch
    #[arg(long, value_name = "N")]
    batch_tokens: Option<usize>,
    /// Compute the vectors again in another dtype, and report how close the two are
    #[arg(long, value_name = "DTYPE")]
    against: Option<Dtype>,
    /// File for the vectors: f32, little-endian, one input after another
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  polylance bench
  polylance bench --model intfloat/multilingual-e5-base --dtype int8
  polylance bench --dtype int8 --against f32             # accuracy cost of a dtype
  POLYLANCE_KERNELS=avx2 polylance bench --dtype f32     # as on an older CPU";

#[derive(Deserialize)]
struct Row {
    input_ids: Vec<u32>,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    measured: BenchReport,
    load_seconds: f64,
    peak_memory: Option<u64>,
    against: Option<Similarity>,
}

/// How close vectors are to those of another dtype.
#[derive(Serialize)]
struct Similarity {
    dtype: String,
    /// The mean over all pairs of vectors.
    cosine: f64,
    /// The minimum of them.
    least_cosine: f64,
}

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let (files, selection) = (args.model.files().await?, args.model.compute.select()?);
    let dtype = selection.dtype;
    let started = Instant::now();
    let pool = models::open(&files, &selection, args.batch_tokens).await?;
    let load_seconds = started.elapsed().as_secs_f64();
    let inputs = match &args.ids {
        Some(path) => read_ids(path)?,
        None => articles(&pool, args.texts as usize).await?,
    };
    let rounds = args.rounds as usize;
    let (config, texts) = (files.config().clone(), inputs.clone());
    // The closure drops the pool and its weights before those of another dtype are loaded.
    let measure = move || polylance_worker::bench(&pool, &config, dtype, &texts, rounds);
    let (measured, vectors) = tokio::task::spawn_blocking(measure).await??;
    let peak_memory = polylance_engine::peak_memory();
    if let Some(path) = &args.vectors {
        let bytes: Vec<u8> = vectors.values.iter().flat_map(|x| x.to_le_bytes()).collect();
        write_atomically(path, &bytes)?;
    }
    let against = match args.against {
        Some(other) => {
            let pool = models::open(&files, &args.model.compute.select_with(other)?, args.batch_tokens).await?;
            Some(Similarity::new(&vectors, &pool.encode(inputs).await?, other))
        }
        None => None,
    };
    let report = Report { measured, load_seconds, peak_memory, against };
    if args.json {
        printer.json(&report)?;
    } else {
        report.print(printer)?;
    }
    Ok(ExitStatus::Done)
}

fn read_ids(path: &PathBuf) -> Result<Vec<Vec<u32>>> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let rows = bytes.lines().enumerate().map(|(at, line)| {
        let row: Row = serde_json::from_str(&line?).with_context(|| format!("{} line {}", path.display(), at + 1))?;
        Ok(row.input_ids)
    });
    rows.collect()
}

/// Tokenized articles of the built-in corpus, in all its languages.
async fn articles(pool: &DevicePool, count: usize) -> Result<Vec<Vec<u32>>> {
    let parquet = bytes::Bytes::from_static(polylance_builtin::udhr_parquet());
    let mut texts = Vec::new();
    for batch in ParquetRecordBatchReader::try_new(parquet, 4096)? {
        let batch = batch?;
        let column = batch.column_by_name("text").context("the built-in corpus has no column `text`")?;
        texts.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    let step = (texts.len() / count).max(1);
    let chosen = texts.into_iter().step_by(step).take(count).collect();
    let chunking = Chunking::Truncate { max_tokens: pool.info().max_tokens };
    let chunks = pool.tokenize(chosen, &TokenizeSpec { prefix: String::new(), chunking }).await?;
    Ok(chunks.into_iter().flatten().map(|chunk| chunk.input_ids).collect())
}

impl Similarity {
    /// Compares the vectors of the same inputs.
    fn new(vectors: &Embeddings, others: &Embeddings, dtype: Dtype) -> Self {
        let pairs = vectors.values.chunks_exact(vectors.dim).zip(others.values.chunks_exact(others.dim));
        let cosines: Vec<f64> = pairs.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).collect();
        let least_cosine = cosines.iter().copied().fold(f64::INFINITY, f64::min);
        Self { dtype: dtype.to_string(), cosine: cosines.iter().sum::<f64>() / cosines.len() as f64, least_cosine }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The devices, with the names of GPUs.
fn devices(measured: &BenchReport) -> String {
    let devices = measured.devices.join(", ");
    if measured.gpus.is_empty() { devices } else { format!("{devices} ({})", measured.gpus.join(", ")) }
}

impl Report {
    fn print(&self, printer: &mut Printer) -> Result<()> {
        let Self { measured, load_seconds, peak_memory, against } = self;
        let sequences = measured.sequences as f64;
        let mut fields = vec![
            ("arithmetic", format!("{} with {} on {}", measured.dtype, measured.instructions, devices(measured))),
            (
                "texts",
                format!("{}, {} tokens", thousands(measured.sequences as u64), thousands(measured.tokens as u64)),
            ),
            ("loading", format!("{load_seconds:.1} s")),
            (
                "rate",
                format!(
                    "{} tok/s, {} texts/s",
                    thousands(measured.tokens_per_second as u64),
                    thousands((sequences / measured.seconds) as u64)
                ),
            ),
        ];
        let share = match (measured.peak_gflops, measured.share_of_peak) {
            (Some(peak), Some(share)) => format!(", {:.0} % of the peak of {peak:.0}", share * 100.0),
            _ => String::new(),
        };
        fields.push(("arithmetic rate", format!("{:.0} GFLOP/s{share}", measured.gflops)));
        fields.extend(peak_memory.map(output::peak_memory));
        fields.extend(against.as_ref().map(|Similarity { dtype, cosine, least_cosine }| {
            ("vectors", format!("cosine to those of {dtype}: mean {cosine:.5}, minimum {least_cosine:.5}"))
        }));
        Ok(printer.fields(&fields)?)
    }
}
