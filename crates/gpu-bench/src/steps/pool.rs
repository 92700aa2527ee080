//! Tokens per second through the device pool, from ids to vectors, compared with the bare engine on the same
//! model.

use std::{fs, path::Path, path::PathBuf, sync::Arc, time::Duration, time::Instant};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use futures::{StreamExt, TryStreamExt, executor::block_on, stream};
use polylance_backend::Backend;
use polylance_encoder::{
    Device, LoadOptions, ModelConfig, ModelFiles, Pooling, SentenceEncoder,
    synthetic::{Checkpoint, Format},
};
use polylance_schema::Dtype;
use polylance_worker::{DevicePool, PoolOptions};
use serde_json::json;

use super::Context;
use crate::{
    geometry::Geometry,
    report::Report,
    throughput::{Effort, measure},
    workload::{Batch, Lengths, batches},
};

/// Options of the step.
#[derive(Debug, Args)]
pub(crate) struct PoolArguments {
    /// The model's sizes; xl writes a checkpoint of 7 GB
    #[arg(long, value_enum, default_value_t = Geometry::XlmrLarge)]
    geometry: Geometry,
    /// The arithmetic
    #[arg(long, default_value_t = Dtype::Bf16)]
    dtype: Dtype,
    /// How long sequences are: a number, or udhr
    #[arg(long, default_value = "udhr")]
    lengths: Lengths,
    /// Tokens of a batch; by default the suggestion of the device
    #[arg(long)]
    tokens: Option<usize>,
    /// Batches through each
    #[arg(long, default_value_t = 40)]
    batches: usize,
    /// Where the checkpoint goes; a temporary folder unless given
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// Windows in flight, as in the operators of a plan.
const WINDOWS_IN_FLIGHT: usize = 3;

/// A tokenizer of a few words: the step starts with ids.
const TOKENIZER: &str = r#"{
  "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
  "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
  "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "all": 1, "human": 2, "beings": 3}, "unk_token": "<unk>"}
}"#;

/// Writes a model to a folder.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn write_model(config: &ModelConfig, folder: &Path) -> Result<ModelFiles> {
    const SHARD_BYTES: u64 = 2_000_000_000;
    Checkpoint::new(config.clone()).format(Format::Bf16).shards(SHARD_BYTES).write(folder)?;
    fs::write(folder.join("tokenizer.json"), TOKENIZER)?;
    let name = folder.to_str().context("the folder's name is not UTF-8")?;
    Ok(ModelFiles::find(name)?)
}

/// Measures both.
///
/// # Errors
/// When the checkpoint cannot be written or the device fails.
pub(crate) fn run(context: &Context<'_>, arguments: &PoolArguments) -> Result<()> {
    let PoolArguments { geometry, dtype, lengths, tokens, batches: count, folder } = arguments;
    let report = context.report;
    let temporary = tempfile::tempdir()?;
    let folder = folder.as_deref().unwrap_or_else(|| temporary.path());
    let config = geometry.config(None);
    report.doing(format_args!("writing {geometry}"));
    let started = Instant::now();
    let files = write_model(&config, folder)?;
    let seconds = started.elapsed().as_secs_f64();
    report.record("checkpoint", format_args!("{geometry} written in {seconds:.1} s"), seconds);

    let gpu = context.open()?;
    report.doing(format_args!("loading {geometry} for the bare engine"));
    let started = Instant::now();
    let options = LoadOptions {
        dtype: Some(*dtype),
        pooling: Some(Pooling::Mean),
        normalize: Some(true),
        batch_tokens: *tokens,
        ..LoadOptions::default()
    };
    let bare = SentenceEncoder::load(&files, &options, &Device::Cuda(Arc::clone(&gpu)))?;
    let seconds = started.elapsed().as_secs_f64();
    report.record("load, bare engine", format_args!("{seconds:.2} s from the files"), seconds);
    report.doing(format_args!("loading {geometry} for the pool"));
    let started = Instant::now();
    let pool = DevicePool::open(
        &files,
        &PoolOptions {
            devices: vec![format!("cuda:{}", context.ordinal)],
            dtype: Some(*dtype),
            pooling: Some(Pooling::Mean),
            normalize: Some(true),
            batch_tokens: *tokens,
            ..PoolOptions::default()
        },
    )
    .map_err(|error| anyhow!("{error}"))?;
    let seconds = started.elapsed().as_secs_f64();
    report.record("load, pool", format_args!("{seconds:.2} s from the files"), seconds);

    let batch_tokens = bare.batch_tokens().context("a GPU has a batch size")?;
    let batches = batches(&config, *lengths, batch_tokens, (*count).clamp(2, 8))?;
    compare_bits(report, &bare, &pool, &batches[0])?;
    let case = format!("{geometry} {dtype} {batch_tokens} ids of {lengths}");
    let mut medians = [Vec::new(), Vec::new()];
    // Each is measured twice, alternately.
    for _ in 0..2 {
        report.doing(format_args!("measuring the bare engine, {case}"));
        let effort = Effort { warmup: 3, batches: *count, time: Duration::from_secs(2) };
        let rate = measure(report, &batches, 2, effort, |batch| {
            bare.embed(&batch.packed)?;
            Ok(())
        })?;
        medians[0].push(rate.overall);
        report.doing(format_args!("measuring the pool, {case}"));
        medians[1].push(through_pool(report, &pool, &batches, *count)?);
    }
    let [bare_rate, pool_rate] = medians.map(|rates| rates.into_iter().fold(0.0, f64::max));
    report.record(&format!("{case}, bare"), format_args!("{bare_rate:>9.0} tok/s"), bare_rate);
    let share = pool_rate / bare_rate;
    report.record(
        &format!("{case}, pool"),
        format_args!("{pool_rate:>9.0} tok/s, {:.1} % of the bare engine", 100.0 * share),
        json!({
            "geometry": geometry.to_string(), "dtype": dtype.to_string(), "batch_tokens": batch_tokens,
            "lengths": lengths.to_string(), "bare": bare_rate, "pool": pool_rate, "share": share,
        }),
    );
    Ok(())
}

/// Checks that both give the same bits for the same ids.
fn compare_bits(report: &Report, bare: &SentenceEncoder, pool: &DevicePool, batch: &Batch) -> Result<()> {
    report.doing("computing a batch on both");
    let expected = bare.embed(&batch.packed)?;
    let found = block_on(pool.encode(batch.rows()))?.values;
    let same = found.len() == expected.len()
        && found.iter().zip(&expected).all(|(found, expected)| found.to_bits() == expected.to_bits())
        && found.iter().all(|number| number.is_finite());
    report.check(
        "same bits",
        same,
        format_args!("{} vectors of the pool and the bare engine", batch.lengths.len()),
        same,
    );
    Ok(())
}

/// Tokens per second from ids to vectors, in windows that keep the devices busy.
fn through_pool(report: &Report, pool: &DevicePool, batches: &[Batch], count: usize) -> Result<f64> {
    // A window of the pool is several batches of a device.
    let per_window = (pool.info().window_tokens / batches[0].tokens().max(1)).max(1);
    let window = |number: usize| -> Vec<Vec<u32>> {
        let batches = batches.iter().cycle().skip(number * per_window % batches.len()).take(per_window);
        batches.flat_map(Batch::rows).collect()
    };
    let windows = count.div_ceil(per_window).max(2);
    let rows: Vec<_> = (0..windows).map(window).collect();
    block_on(pool.encode(batches[0].rows()))?;
    report.progress();
    let tokens: usize = rows.iter().flatten().map(Vec::len).sum();
    let started = Instant::now();
    let encoded = stream::iter(rows).map(|rows| pool.encode(rows)).buffered(WINDOWS_IN_FLIGHT);
    let done = encoded.try_for_each(|_| async {
        report.progress();
        Ok(())
    });
    block_on(done)?;
    Ok(tokens as f64 / started.elapsed().as_secs_f64())
}
