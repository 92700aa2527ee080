//! Loading of weights into an encoder, and the options and the report of the loading.

use std::sync::Arc;

use polylance_schema::{Dtype, Pooling};
use serde::Serialize;

use crate::{
    config::ModelConfig,
    cuda::CudaEncoder,
    device::Device,
    dtype,
    encoder::Encoder,
    error::Result,
    files::ModelFiles,
    weights::{CheckedWeights, TensorSpec, Weights, tensors},
};

/// Above this many bytes in f32, half-precision weights are widened one layer at a time.
const WIDEN_PER_LAYER_ABOVE: u64 = 4 << 30;

/// When half-precision weights are widened to f32, if the arithmetic is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Widen {
    /// Per layer when the model would need more than 4 GiB in f32.
    #[default]
    Auto,
    /// Once: twice the memory, at full speed.
    AtLoad,
    /// In every pass: the weights stay in the mapped file.
    PerLayer,
}

/// How a model is loaded. The defaults are those of the model.
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
    /// When half-precision weights are widened to f32.
    pub widen: Widen,
    /// The largest number of tokens in a pass on a GPU; by default it depends on the free memory.
    pub batch_tokens: Option<usize>,
}

/// The report of a loading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadReport {
    /// Numbers in the tensors that are read.
    pub parameters: u64,
    /// The format of the weights in the files.
    pub stored_dtype: String,
    /// The arithmetic.
    pub compute_dtype: String,
    /// Tensors that are absent and taken as zero.
    pub missing: Vec<String>,
    /// Tensors in the files that are not read.
    pub unused: Vec<String>,
    /// Whether weights are widened one layer at a time.
    pub per_layer: bool,
}

impl LoadReport {
    /// The report for weights that are generated, not read.
    pub(crate) fn synthetic(config: &ModelConfig, dtype: Dtype) -> Self {
        let numbers = |spec: &TensorSpec| spec.shape.iter().map(|size| *size as u64).product::<u64>();
        Self {
            parameters: tensors(config).iter().map(numbers).sum(),
            stored_dtype: "none".to_owned(),
            compute_dtype: dtype.to_string(),
            missing: Vec::new(),
            unused: Vec::new(),
            per_layer: false,
        }
    }

    pub(crate) fn new(checked: CheckedWeights, dtype: Dtype, per_layer: bool) -> Self {
        Self {
            parameters: checked.parameters,
            stored_dtype: checked.stored.name().to_owned(),
            compute_dtype: dtype.to_string(),
            missing: checked.missing,
            unused: checked.unused,
            per_layer,
        }
    }
}

/// An encoder on its device.
#[derive(Debug)]
pub(crate) enum Engine {
    /// On the CPU.
    Cpu(Box<Encoder>),
    /// On a GPU.
    Cuda(Box<CudaEncoder>),
}

impl Engine {
    /// The largest number of tokens in a pass; `None` on a CPU, which has no limit.
    pub(crate) fn batch_tokens(&self) -> Option<usize> {
        match self {
            Self::Cpu(_) => None,
            Self::Cuda(encoder) => Some(encoder.batch_tokens()),
        }
    }
}

/// An encoder, and the weights from which a head can be loaded.
pub(crate) struct Loaded {
    pub(crate) engine: Engine,
    pub(crate) weights: Arc<Weights>,
    pub(crate) report: LoadReport,
}

impl Loaded {
    /// Loads the encoder; the tensors of the head, which `head` names, are checked with the encoder's.
    pub(crate) fn new(
        files: &ModelFiles,
        options: &LoadOptions,
        device: &Device,
        head: impl FnOnce(&Weights) -> Result<Vec<TensorSpec>>,
    ) -> Result<Self> {
        let dtype = options.dtype.unwrap_or_default();
        dtype::check_dtype(dtype, device)?;
        let config = files.config();
        let weights = Weights::open(files.weights())?;
        let mut specs = tensors(config);
        specs.extend(head(&weights)?);
        let checked = CheckedWeights::new(weights, &specs)?;
        let per_layer = match options.widen {
            _ if !device.is_cpu() => false,
            Widen::AtLoad => false,
            Widen::PerLayer => true,
            Widen::Auto => {
                // Packed weights of fewer bits are no larger than the stored ones.
                let wide = dtype == Dtype::F32 && checked.stored.is_half();
                wide && checked.parameters * 4 > WIDEN_PER_LAYER_ABOVE
            }
        };
        let engine = match device {
            Device::Cpu => Engine::Cpu(Box::new(Encoder::load(&checked.weights, config, dtype, per_layer)?)),
            Device::Cuda(gpu) => {
                Engine::Cuda(Box::new(CudaEncoder::load(&checked.weights, config, dtype, options.batch_tokens, gpu)?))
            }
        };
        checked.weights.release_all();
        let weights = Arc::clone(&checked.weights);
        Ok(Self { engine, weights, report: LoadReport::new(checked, dtype, per_layer) })
    }
}
