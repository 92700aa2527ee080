//! A model whose layers are copied to the device again for every batch, compared with the same on the device: tokens per
//! second, and bits.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use polylance_encoder::{Gpu, ModelConfig, ModelError, SentenceEncoder};
use polylance_schema::Dtype;
use serde_json::json;

use super::{Context, memory::take_memory, synthetic};
use crate::{
    geometry::Geometry,
    throughput::{Effort, Rate, measure},
    workload::{Batch, Lengths, batches},
};

/// Options of the step.
#[derive(Debug, Args)]
pub(crate) struct StreamedArguments {
    /// The model's sizes
    #[arg(long, value_enum, default_value_t = Geometry::Xl)]
    geometry: Geometry,
    /// How many layers, if not all; at least three
    #[arg(long)]
    layers: Option<usize>,
    /// The arithmetic
    #[arg(long, default_value_t = Dtype::Bf16)]
    dtype: Dtype,
    /// Tokens of a batch
    #[arg(long, default_value_t = 32_768)]
    tokens: usize,
    /// How long sequences are: a number, or udhr
    #[arg(long, default_value = "128")]
    lengths: Lengths,
    /// Threads that compute at once
    #[arg(long, default_value_t = 2)]
    lanes: usize,
    /// Enough batches
    #[arg(long, default_value_t = 12)]
    batches: usize,
    /// Enough time, once a quarter of the batches is done
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// Different batches that are computed in turn.
const DIFFERENT_BATCHES: usize = 3;

/// Device memory that a loaded model leaves free.
const RESERVED_BYTES: u64 = 512 << 20;

/// Measures the model on the device, then takes memory until only a part of it fits, and measures it again.
///
/// # Errors
/// When the device fails, or the model is not streamed.
pub(crate) fn run(context: &Context<'_>, arguments: &StreamedArguments) -> Result<()> {
    let &StreamedArguments { geometry, layers, dtype, tokens, lengths, lanes, batches: most, seconds } = arguments;
    let report = context.report;
    let gpu = context.open()?;
    let config = geometry.config(layers);
    let batches = batches(&config, lengths, tokens, DIFFERENT_BATCHES)?;
    let effort = Effort { warmup: 2, batches: most, time: Duration::from_secs_f64(seconds.max(0.0)) };
    let measured = |model: &SentenceEncoder, name: &str| -> Result<(Rate, Vec<Vec<u32>>)> {
        report.doing(format_args!("measuring {geometry}, {name}"));
        let vectors = batches.iter().map(|batch| bits(model, batch)).collect::<Result<_>>()?;
        let compute = |batch: &Batch| -> Result<()> {
            model.embed(&batch.packed)?;
            Ok(())
        };
        let rate = measure(report, &batches, lanes, effort, compute)?;
        let mut value = rate.to_json();
        value["about"] = json!({
            "geometry": geometry.to_string(), "layers": config.num_hidden_layers, "dtype": dtype.to_string(),
            "batch_tokens": tokens, "lengths": lengths.to_string(), "lanes": lanes, "placement": name,
        });
        report.record(name, format_args!("{:>9.0} tok/s ±{:.1} %", rate.median, 50.0 * rate.spread()), value);
        Ok((rate, vectors))
    };

    report.doing(format_args!("making {geometry}"));
    let before = gpu.free_memory()?;
    let model = synthetic(&gpu, &config, dtype, Some(tokens))?;
    let taken = before.saturating_sub(gpu.free_memory()?);
    report.progress();
    ensure!(model.report().streaming.is_none(), "the device has too little memory for the whole model");
    let (resident, expected) = measured(&model, "on the device")?;
    drop(model);

    let leave = RESERVED_BYTES + taken.saturating_sub(saved_bytes(&gpu, &config, dtype)? / 2);
    let hog = take_memory(report, &gpu, leave)?;
    report.doing(format_args!("making {geometry} with streamed layers"));
    let model = synthetic(&gpu, &config, dtype, Some(tokens))?;
    report.progress();
    let streaming = model.report().streaming.context("the model fits into the memory that was left")?;
    let (streamed, found) = measured(&model, "streamed")?;
    drop((model, hog));

    let differ = expected.iter().flatten().zip(found.iter().flatten()).filter(|(a, b)| a != b).count();
    let same = differ == 0 && expected.iter().map(Vec::len).eq(found.iter().map(Vec::len));
    report.check("same bits", same, format_args!("{differ} numbers differ"), same);
    let share = streamed.median / resident.median;
    // A copy of every layer per batch.
    let copied = streaming.layer_bytes as f64 * config.num_hidden_layers as f64;
    let gigabytes = copied / (1e6 * streamed.milliseconds);
    report.record(
        "share of the rate on the device",
        format_args!("{:.1} %, {gigabytes:.1} GB/s copied meanwhile", 100.0 * share),
        json!({"share": share, "gigabytes_per_second": gigabytes}),
    );
    Ok(())
}

/// Bytes of device memory that streaming saves.
fn saved_bytes(gpu: &Arc<Gpu>, config: &ModelConfig, dtype: Dtype) -> Result<u64> {
    const TOO_MANY_TOKENS: usize = 100_000_000;
    let Err(error) = synthetic(gpu, config, dtype, Some(TOO_MANY_TOKENS)) else {
        bail!("{TOO_MANY_TOKENS} tokens fit into the device's memory");
    };
    match error.downcast_ref() {
        Some(ModelError::DeviceMemory { weights, streamed, .. }) => Ok(weights - streamed),
        _ => Err(error),
    }
}

/// The bits of a batch's vectors.
fn bits(model: &SentenceEncoder, batch: &Batch) -> Result<Vec<u32>> {
    Ok(model.embed(&batch.packed)?.into_iter().map(f32::to_bits).collect())
}
