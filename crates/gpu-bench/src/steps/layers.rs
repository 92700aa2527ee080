//! A few layers of the true width, written as arrays, so that torch can compute the same and compare.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use clap::Args;
use polylance_encoder::{Device, LoadOptions, Pooling, SentenceEncoder};
use polylance_schema::Dtype;
use serde_json::json;

use super::Context;
use crate::{
    geometry::Geometry,
    npy,
    workload::{Lengths, batches},
};

/// Options of the step.
#[derive(Debug, Args)]
pub(crate) struct LayersArguments {
    /// Where `ids.npy`, `borders.npy`, `states.npy` and `means.npy` go
    folder: PathBuf,
    /// The model's sizes
    #[arg(long, value_enum, default_value_t = Geometry::Xl)]
    geometry: Geometry,
    /// How many layers
    #[arg(long, default_value_t = 4)]
    layers: usize,
    /// The arithmetic
    #[arg(long, default_value_t = Dtype::Bf16)]
    dtype: Dtype,
    /// The lengths of sequences: a number, or udhr
    #[arg(long, default_value = "udhr")]
    lengths: Lengths,
    /// Tokens in all
    #[arg(long, default_value_t = 4096)]
    tokens: usize,
}

/// Computes the layers and writes the arrays.
///
/// # Errors
/// When the device fails or the folder cannot be written.
pub(crate) fn run(context: &Context<'_>, arguments: &LayersArguments) -> Result<()> {
    let LayersArguments { folder, geometry, layers, dtype, lengths, tokens } = arguments;
    let report = context.report;
    let gpu = context.open()?;
    report.doing(format_args!("making {layers} layers of {geometry}"));
    let config = geometry.config(Some(*layers));
    let options = LoadOptions {
        dtype: Some(*dtype),
        pooling: Some(Pooling::Mean),
        normalize: Some(false),
        batch_tokens: Some(*tokens),
        ..LoadOptions::default()
    };
    let model = SentenceEncoder::synthetic(&config, &options, &Device::Cuda(Arc::clone(&gpu)))?;
    let batch = batches(&config, *lengths, *tokens, 1)?.remove(0);
    report.doing("computing the layers");
    let states = model.hidden_states(&batch.packed)?.flatten_all()?.to_vec1::<f32>()?;
    let means = model.embed(&batch.packed)?;
    let finite = states.iter().chain(&means).all(|number| number.is_finite());
    report.check("states and means are finite", finite, format_args!("{} numbers", states.len()), finite);

    let hidden = config.hidden_size;
    let written = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        npy::write_u32(&folder.join("ids.npy"), &[batch.tokens()], &batch.packed.input_ids)?;
        npy::write_u32(&folder.join("borders.npy"), &[batch.packed.cu_seqlens.len()], &batch.packed.cu_seqlens)?;
        npy::write_f32(&folder.join("states.npy"), &[batch.tokens(), hidden], &states)?;
        npy::write_f32(&folder.join("means.npy"), &[batch.lengths.len(), hidden], &means)?;
        // The keys from which the other program makes the same model.
        let about = json!({"config": config.to_json(), "dtype": dtype.to_string(), "geometry": geometry.to_string()});
        fs::write(folder.join("about.json"), format!("{about:#}\n"))
    };
    written().with_context(|| folder.display().to_string())?;
    report.record(
        "written",
        format_args!("{} tokens of {} sequences, {layers} layers, {dtype}", batch.tokens(), batch.lengths.len()),
        json!({"tokens": batch.tokens(), "sequences": batch.lengths.len(), "layers": layers}),
    );
    Ok(())
}
