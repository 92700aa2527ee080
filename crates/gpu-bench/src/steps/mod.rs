//! The steps, one module each.

pub(crate) mod batchings;
pub(crate) mod goldens;
pub(crate) mod info;
pub(crate) mod kernels;
pub(crate) mod latency;
pub(crate) mod layers;
pub(crate) mod memory;
pub(crate) mod pool;
pub(crate) mod speed;
pub(crate) mod streamed;
pub(crate) mod tiny;

use std::sync::Arc;

use anyhow::Result;
use polylance_encoder::{Device, Gpu, LoadOptions, ModelConfig, SentenceEncoder};
use polylance_schema::Dtype;

use crate::report::Report;

/// The context of every step.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) report: &'a Report,
    /// The GPU, by the driver's number.
    pub(crate) ordinal: u32,
}

impl Context<'_> {
    /// Opens the GPU.
    pub(crate) fn open(&self) -> Result<Arc<Gpu>> {
        self.report.doing("opening the GPU");
        let gpu = Gpu::open(self.ordinal)?;
        self.report.progress();
        Ok(gpu)
    }
}

/// A model with weights by formula, generated on the device.
pub(crate) fn synthetic(
    gpu: &Arc<Gpu>,
    config: &ModelConfig,
    dtype: Dtype,
    batch_tokens: Option<usize>,
) -> Result<SentenceEncoder> {
    let options = LoadOptions { dtype: Some(dtype), batch_tokens, ..LoadOptions::default() };
    Ok(SentenceEncoder::synthetic(config, &options, &Device::Cuda(Arc::clone(gpu)))?)
}
