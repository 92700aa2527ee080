//! From a packed batch to vectors: encoder, pooling, dimensions, normalization.

use std::sync::Arc;

use candle_core::{Device as CandleDevice, Tensor};
use polylance_cuda::{Gpu, KernelTime};
use polylance_schema::Pooling;

use crate::{
    batch::{CuSeqlens, PackedBatch},
    config::ModelConfig,
    cuda::{self, Attention, CudaEncoder, CudaHead, Request, Vectors},
    device::Device,
    encoder::EncodedPart,
    error::{ModelError, Result},
    files::ModelFiles,
    heads::Logits,
    loading::{Engine, LoadOptions, LoadReport, Loaded},
    pooling::{normalize, pool},
    residency::HeadWeights,
    shared_head::SharedHead,
};

/// A loaded model that embeds. It is immutable, and CPU devices share one. On a GPU several threads may
/// compute at once: the GPU runs their batches one after another without a gap.
#[derive(Debug)]
pub struct SentenceEncoder {
    engine: Engine,
    pooling: Pooling,
    normalize: bool,
    hidden_size: usize,
    dim: usize,
    report: LoadReport,
}

impl SentenceEncoder {
    /// Loads a model onto a device.
    ///
    /// # Errors
    /// When files, tensors or options do not fit; see [`ModelError`].
    pub fn load(files: &ModelFiles, options: &LoadOptions, device: &Device) -> Result<Self> {
        if files.head_config().is_decoder {
            return Err(files.head_config().decoder_refused("embedding"));
        }
        let (config, defaults) = (files.config(), files.defaults());
        let dim = dimensions(options, config)?;
        let Loaded { engine, report, .. } = Loaded::new(files, options, device, |_| Ok(HeadWeights::default()))?;
        Ok(Self {
            engine,
            pooling: options.pooling.unwrap_or(defaults.pooling),
            normalize: options.normalize.unwrap_or(defaults.normalize),
            hidden_size: config.hidden_size,
            dim,
            report,
        })
    }

    /// Whether a model should be spread over these GPUs ([`Device::CudaStages`]): none of them holds it with a batch that
    /// keeps it busy, together they do, and they have one compute capability.
    ///
    /// # Errors
    /// As [`SentenceEncoder::load`]; when a device fails.
    pub fn is_spread(files: &ModelFiles, options: &LoadOptions, gpus: &[Arc<Gpu>]) -> Result<bool> {
        cuda::is_spread(gpus, files.config(), options, &HeadWeights::default())
    }

    /// A model of this geometry on a GPU, with weights generated there by the formula of [`crate::synthetic`], to
    /// measure a size without a file. By default, vectors are the mean of the states, normalized to length one.
    ///
    /// # Errors
    /// [`ModelError::Option`] on a CPU or for dimensions that the model does not have, [`ModelError::Unsupported`] for
    /// a geometry that is padded on a GPU; when the device has too little memory or fails.
    pub fn synthetic(config: &ModelConfig, options: &LoadOptions, device: &Device) -> Result<Self> {
        if device.is_cpu() {
            return Err(ModelError::Option("weights are made by the formula on a GPU alone".to_owned()));
        }
        let (dtype, dim) = (options.dtype.unwrap_or_default(), dimensions(options, config)?);
        let encoder = CudaEncoder::synthetic(config, options, device.gpus())?;
        let report = LoadReport::synthetic(config, dtype, encoder.streaming());
        Ok(Self {
            engine: Engine::Cuda(Box::new(encoder)),
            pooling: options.pooling.unwrap_or(Pooling::Mean),
            normalize: options.normalize.unwrap_or(true),
            hidden_size: config.hidden_size,
            dim,
            report,
        })
    }

    /// The device that a head for these states has to be on: of several GPUs, the one with the last layers.
    pub fn head_device(&self) -> Device {
        match &self.engine {
            Engine::Cpu(_) => Device::Cpu,
            Engine::Cuda(encoder) => Device::Cuda(Arc::clone(encoder.last_gpu())),
        }
    }

    /// Times of a GPU's kernels since the last call, while [`polylance_cuda::Gpu::set_profile`] is on.
    pub fn take_kernel_times(&self) -> Vec<KernelTime> {
        match &self.engine {
            Engine::Cpu(_) => Vec::new(),
            Engine::Cuda(encoder) => encoder.take_kernel_times(),
        }
    }

    /// The last hidden states: `[total_tokens, hidden]` in f32, in the host's memory.
    ///
    /// # Errors
    /// When an input cannot be computed or the device fails.
    pub fn hidden_states(&self, batch: &PackedBatch) -> Result<Tensor> {
        match &self.engine {
            Engine::Cpu(encoder) => encoder.forward(batch),
            Engine::Cuda(encoder) => {
                let request = Request { states: true, ..Request::default() };
                let states = encoder.compute(batch, Attention::Both, request)?.states;
                Ok(Tensor::from_vec(states, (batch.input_ids.len(), self.hidden_size), &CandleDevice::Cpu)?)
            }
        }
    }

    /// One vector per sequence: `[sequences, dim]`, row major.
    ///
    /// # Errors
    /// When an input cannot be computed or the device fails.
    pub fn embed(&self, batch: &PackedBatch) -> Result<Vec<f32>> {
        Ok(self.embed_with(batch, &[])?.0)
    }

    /// One vector per sequence (`[sequences, dim]`, row major) and every head's logits, by head and sequence, from one
    /// pass. Heads that were loaded for another backbone return meaningless numbers: compare
    /// [`ModelFiles::backbone_hash`] first.
    ///
    /// # Errors
    /// [`ModelError::Option`] for a head on another device; when an input cannot be computed or the device fails.
    pub fn embed_with(&self, batch: &PackedBatch, heads: &[SharedHead]) -> Result<(Vec<f32>, Vec<Logits>)> {
        match &self.engine {
            Engine::Cpu(encoder) => {
                let (mut vectors, mut logits) = (Vec::new(), vec![Logits::new(); heads.len()]);
                encoder.each_part(batch, |EncodedPart { hidden_states, cu_seqlens, .. }| {
                    for (head, logits) in heads.iter().zip(&mut logits) {
                        logits.extend(head.forward(&hidden_states, &cu_seqlens)?);
                    }
                    vectors.extend(self.vectors(&hidden_states, &cu_seqlens)?);
                    Ok(())
                })?;
                Ok((vectors, logits))
            }
            Engine::Cuda(encoder) => {
                let heads: Vec<&CudaHead> = heads.iter().map(SharedHead::on_gpu).collect::<Result<_>>()?;
                let vectors = Vectors { pooling: self.pooling, normalize: self.normalize, dim: self.dim };
                let request = Request { vectors: Some(vectors), heads: &heads, states: false };
                let response = encoder.compute(batch, Attention::Both, request)?;
                Ok((response.vectors, response.logits))
            }
        }
    }

    /// The largest number of tokens in a pass; `None` on a CPU, which has no limit.
    pub fn batch_tokens(&self) -> Option<usize> {
        self.engine.batch_tokens()
    }

    fn vectors(&self, hidden_states: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Vec<f32>> {
        let mut vectors = pool(hidden_states, cu_seqlens, self.pooling)?;
        if self.dim < self.hidden_size {
            vectors = vectors.chunks_exact(self.hidden_size).flat_map(|vector| &vector[..self.dim]).copied().collect();
        }
        if self.normalize {
            vectors.chunks_exact_mut(self.dim).for_each(normalize);
        }
        Ok(vectors)
    }

    /// Dimensions of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The report of the loading.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }
}

/// The dimensions of a vector.
///
/// # Errors
/// [`ModelError::Option`] for 0, or more than the model has.
fn dimensions(options: &LoadOptions, config: &ModelConfig) -> Result<usize> {
    let dim = options.dims.unwrap_or(config.hidden_size);
    if dim == 0 || dim > config.hidden_size {
        return Err(ModelError::Option(format!("dims is {dim}, the model has {} dimensions", config.hidden_size)));
    }
    Ok(dim)
}
