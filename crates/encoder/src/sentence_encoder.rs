//! From a packed batch to vectors: encoder, pooling, dimensions, normalization.

use candle_core::{DType, Device, Tensor};
use polylance_schema::Pooling;
use serde::Serialize;

use crate::{
    batch::{CuSeqlens, PackedBatch},
    dtype::Dtype,
    encoder::Encoder,
    error::{ModelError, Result},
    files::ModelFiles,
    pooling::pool,
    weights::{CheckedWeights, Weights},
};

/// Above this many bytes in f32, half-precision weights are widened a layer at a time.
const WIDEN_PER_LAYER_ABOVE: u64 = 4 << 30;

/// When half-precision weights become f32, where the arithmetic is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Widen {
    /// Per layer when the model would need more than 4 GiB in f32.
    #[default]
    Auto,
    /// Once: twice the memory, the full speed.
    AtLoad,
    /// In every pass: the weights stay in the map.
    PerLayer,
}

/// How a model is loaded. The default is what the model says.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The arithmetic; f32 unless given.
    pub dtype: Option<Dtype>,
    /// Overrides the model's pooling.
    pub pooling: Option<Pooling>,
    /// Overrides the model's normalization.
    pub normalize: Option<bool>,
    /// Keeps only this many leading dimensions.
    pub dims: Option<usize>,
    /// When half-precision weights become f32.
    pub widen: Widen,
}

/// What loading found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadReport {
    /// Numbers in the tensors that the encoder reads.
    pub parameters: u64,
    /// The format of the weights in the files.
    pub stored_dtype: String,
    /// The arithmetic.
    pub compute_dtype: String,
    /// Tensors that are absent and taken as zero.
    pub missing: Vec<String>,
    /// Tensors in the files that the encoder does not read.
    pub unused: Vec<String>,
    /// Whether weights are widened a layer at a time.
    pub per_layer: bool,
}

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
        let dtype = options.dtype.unwrap_or_default();
        dtype.check(device)?;
        let (config, defaults) = (files.config(), files.defaults());
        let dim = options.dims.unwrap_or(config.hidden_size);
        if dim == 0 || dim > config.hidden_size {
            return Err(ModelError::Option(format!("dims is {dim}, the model has {} dimensions", config.hidden_size)));
        }
        let checked = CheckedWeights::new(Weights::open(files.weights())?, config)?;
        let per_layer = match options.widen {
            Widen::AtLoad => false,
            Widen::PerLayer => true,
            Widen::Auto => {
                device.is_cpu() && checked.stored.is_half() && checked.parameters * 4 > WIDEN_PER_LAYER_ABOVE
            }
        };
        let encoder = Encoder::load(&checked.weights, config, DType::from(dtype), device, per_layer)?;
        checked.weights.release_all();
        let report = LoadReport {
            parameters: checked.parameters,
            stored_dtype: checked.stored.name().to_owned(),
            compute_dtype: dtype.to_string(),
            missing: checked.missing,
            unused: checked.unused,
            per_layer,
        };
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
        let mut vectors = pool(&hidden_states, &cu_seqlens, self.pooling)?;
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

/// Length one; the zero vector stays as it is. Source: `torch.nn.functional.normalize`.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    for x in vector {
        *x /= length;
    }
}
