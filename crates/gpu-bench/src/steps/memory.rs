//! Checks that too little memory, invalid input and invalid weights give errors that name the cause, and that the
//! device keeps working.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use futures::executor::block_on;
use polylance_backend::{Backend, BackendError};
use polylance_cuda::DeviceBuffer;
use polylance_encoder::{Gpu, ModelConfig, ModelError, PackedBatch, SentenceEncoder};
use polylance_schema::Dtype;
use polylance_worker::{DevicePool, PoolOptions};
use serde_json::Value;

use super::{Context, pool::write_model, synthetic};
use crate::{
    geometry::Geometry,
    report::Report,
    workload::{Batch, ids},
};

/// Options of the step.
#[derive(Debug, Args)]
pub(crate) struct MemoryArguments {
    /// How many MiB of device memory are left free
    #[arg(long, default_value_t = 2048)]
    leave: u64,
    /// A model that does not fit into that
    #[arg(long, value_enum, default_value_t = Geometry::Xl)]
    large: Geometry,
    /// A model that fits, with batches smaller than usual
    #[arg(long, value_enum, default_value_t = Geometry::XlmrLarge)]
    small: Geometry,
}

/// Exceeds each limit.
///
/// # Errors
/// When the device fails.
pub(crate) fn run(context: &Context<'_>, arguments: &MemoryArguments) -> Result<()> {
    let report = context.report;
    let gpu = context.open()?;
    let small = arguments.small.config(None);
    report.doing("computing before the limits");
    let model = synthetic(&gpu, &small, Dtype::Bf16, None)?;
    let suggested = model.batch_tokens().context("a GPU has a batch size")?;
    let batch = Batch::new(&[ids(&small, 0, 20), ids(&small, 1, 70)])?.packed;
    let before = model.embed(&batch)?;
    drop(model);

    let hog = take_memory(report, &gpu, arguments.leave << 20)?;
    report.doing("loading a model that does not fit");
    // In f32, not even two layers of XL and its embeddings fit into 2 GiB.
    let refused = synthetic(&gpu, &arguments.large.config(None), Dtype::F32, None);
    expect_error(report, "a model that does not fit", refused, |error| {
        matches!(error, ModelError::DeviceMemory { .. })
    });
    report.doing("loading a batch that does not fit");
    let refused = synthetic(&gpu, &small, Dtype::Bf16, Some(100_000_000));
    expect_error(report, "a batch that does not fit", refused, |error| {
        matches!(error, ModelError::DeviceMemory { .. }) && error.to_string().contains("model.batch_tokens")
    });
    report.doing("loading a model that fits with a smaller batch");
    let model = synthetic(&gpu, &small, Dtype::Bf16, None)?;
    let reduced = model.batch_tokens().context("a GPU has a batch size")?;
    let same = model.embed(&batch)? == before;
    let text = format!("{reduced} tokens, {suggested} with all of the memory; the vectors are the same: {same}");
    report.check("a smaller batch", same && reduced <= suggested, text, reduced);
    drop(model);
    drop(hog);

    let model = synthetic(&gpu, &small, Dtype::Bf16, None)?;
    bad_input(report, &model, &small);
    report.doing("computing a model with a weight that is not a number");
    not_a_number(report, context.ordinal)?;
    report.doing("computing after the limits");
    let same = model.embed(&batch)? == before;
    report.check("the device goes on", same, format_args!("the vectors are those of before: {same}"), same);
    Ok(())
}

/// Allocates device memory until only this many bytes are free.
pub(crate) fn take_memory(report: &Report, gpu: &Arc<Gpu>, leave: u64) -> Result<Vec<DeviceBuffer>> {
    const MAX_ALLOCATION_BYTES: u64 = 1 << 30;
    report.doing("taking the memory");
    let (mut taken, mut before) = (Vec::new(), 0);
    loop {
        let free = gpu.free_memory()?;
        let bytes = free.saturating_sub(leave).min(MAX_ALLOCATION_BYTES);
        // The driver allocates in pages of 2 MiB: the last allocation may take more, or a part of an earlier page.
        if bytes == 0 || std::mem::replace(&mut before, free) == free {
            report.record("memory left free", format_args!("{:.2} GiB", free as f64 / f64::from(1 << 30)), free);
            return Ok(taken);
        }
        taken.push(DeviceBuffer::new(gpu, bytes as usize)?);
        report.progress();
    }
}

/// Checks that a result is the expected error.
fn expect_error<T>(report: &Report, name: &str, result: Result<T>, is_expected: impl FnOnce(&ModelError) -> bool) {
    match result {
        Ok(_) => report.check(name, false, "no error", Value::Null),
        Err(error) => {
            let expected = error.downcast_ref::<ModelError>().is_some_and(is_expected);
            let text = format!("{error:#}");
            report.check(name, expected, &text, text.as_str());
        }
    }
}

/// Checks unknown ids, and too many tokens.
fn bad_input(report: &Report, model: &SentenceEncoder, config: &ModelConfig) {
    let cases = [
        ("an id outside of the vocabulary", vec![config.vocab_size as u32]),
        ("a sequence that is too long", ids(config, 0, config.max_tokens() + 1)),
    ];
    for (name, row) in cases {
        report.doing(format_args!("computing {name}"));
        let embedded = PackedBatch::new(&[vec![7], row]).and_then(|batch| model.embed(&batch));
        expect_error(report, name, embedded.map_err(Into::into), |error| {
            matches!(error, ModelError::Input { sequence: 1, .. })
        });
    }
}

/// Checks that a pool returns no vector that is not finite.
fn not_a_number(report: &Report, ordinal: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let files = write_model(&Geometry::Tiny.config(None), folder.path())?;
    spoil(&folder.path().join("model.safetensors"), "encoder.layer.0.intermediate.dense.bias")?;
    let devices = vec![format!("cuda:{ordinal}")];
    let options = PoolOptions { devices, dtype: Some(Dtype::Bf16), ..PoolOptions::default() };
    let pool = DevicePool::open(&files, &options)?;
    let result = block_on(pool.encode(vec![vec![5, 6, 7]]));
    let refused = matches!(&result, Err(BackendError::Input(reason)) if reason.contains("not finite"));
    let text = result.err().map_or_else(|| "no error".to_owned(), |error| error.to_string());
    report.check("a weight that is not a number", refused, &text, text.as_str());
    Ok(())
}

/// Sets the first number of a tensor, stored as bf16, to NaN.
fn spoil(file: &Path, tensor: &str) -> Result<()> {
    let mut bytes = fs::read(file)?;
    let length = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length) as usize);
    let header = length.and_then(|length| bytes.get(8..8 + length)).context("the file has no header")?;
    let (start, header): (usize, Value) = (8 + header.len(), serde_json::from_slice(header)?);
    let Some(offset) = header[tensor]["data_offsets"][0].as_u64() else {
        bail!("{tensor} is not in {}", file.display())
    };
    ensure!(header[tensor]["dtype"] == "BF16", "{tensor} is not stored as bf16");
    let at = start + offset as usize;
    let number = bytes.get_mut(at..at + 2).context("the file is cut off")?;
    number.copy_from_slice(&half::bf16::NAN.to_le_bytes());
    Ok(fs::write(file, bytes)?)
}
