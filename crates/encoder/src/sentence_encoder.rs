//! From a packed batch to vectors: encoder, pooling, dimensions, normalization.

use candle_core::{Device, Tensor};
use polylance_schema::Pooling;

use crate::{
    batch::{CuSeqlens, PackedBatch},
    encoder::Encoder,
    error::{ModelError, Result},
    files::ModelFiles,
    loading::{LoadOptions, LoadReport, Loaded},
    pooling::{normalize, pool},
    shared_head::SharedHead,
    task_model::Logits,
};

/// A loaded model that embeds. It is immutable, and CPU devices share one.
#[derive(Debug)]
pub struct SentenceEncoder {
    encoder: Encoder,
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
        let dim = options.dims.unwrap_or(config.hidden_size);
        if dim == 0 || dim > config.hidden_size {
            return Err(ModelError::Option(format!("dims is {dim}, the model has {} dimensions", config.hidden_size)));
        }
        let Loaded { encoder, report, .. } = Loaded::new(files, options, device, |_| Ok(Vec::new()))?;
        Ok(Self {
            encoder,
            pooling: options.pooling.unwrap_or(defaults.pooling),
            normalize: options.normalize.unwrap_or(defaults.normalize),
            hidden_size: config.hidden_size,
            dim,
            report,
        })
    }

    /// The last hidden states: `[total_tokens, hidden]`.
    ///
    /// # Errors
    /// When an input cannot be computed or the device fails.
    pub fn hidden_states(&self, batch: &PackedBatch) -> Result<Tensor> {
        self.encoder.forward(batch)
    }

    /// One vector a sequence: `[sequences, dim]`, row major.
    ///
    /// # Errors
    /// When an input cannot be computed or the device fails.
    pub fn embed(&self, batch: &PackedBatch) -> Result<Vec<f32>> {
        let hidden_states = self.hidden_states(batch)?;
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len())?;
        self.vectors(&hidden_states, &cu_seqlens)
    }

    /// One vector a sequence (`[sequences, dim]`, row major) and every head's logits, by head and sequence, from one
    /// pass. Heads that were loaded for another backbone give numbers without meaning: compare
    /// [`ModelFiles::backbone_hash`] first.
    ///
    /// # Errors
    /// When an input cannot be computed or the device fails.
    pub fn embed_with(&self, batch: &PackedBatch, heads: &[SharedHead]) -> Result<(Vec<f32>, Vec<Logits>)> {
        let hidden_states = self.hidden_states(batch)?;
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len())?;
        let logits = heads.iter().map(|head| head.forward(&hidden_states, &cu_seqlens)).collect::<Result<_>>()?;
        Ok((self.vectors(&hidden_states, &cu_seqlens)?, logits))
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

    /// What loading found.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }
}
