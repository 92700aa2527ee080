//! Loading of weights into an encoder, and the options and the report of the loading.

use std::sync::Arc;

use polylance_schema::{Dtype, Pooling};
use serde::Serialize;

use crate::{
    available_memory::available_memory,
    config::ModelConfig,
    cuda::CudaEncoder,
    device::Device,
    dtype,
    encoder::Encoder,
    error::Result,
    files::ModelFiles,
    residency::{HeadWeights, LayerPlacement, Streaming, WeightBytes},
    weights::{CheckedWeights, TensorSpec, Weights, tensors},
};

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
    /// The most bytes that the weights may take in the host's memory. On the CPU, the layers of a larger model stay in
    /// their files and are read again in every pass. On a GPU that does not hold the whole model, all its layers are in
    /// the host's memory, and more are refused. Three quarters of the available memory unless given.
    pub memory: Option<u64>,
    /// The largest number of tokens in a pass on a GPU, by default as many as fit into its free memory, up to a number
    /// that keeps it busy; and through a layer at once on a CPU that reads the layers again in every pass, by default
    /// 8,192.
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
    /// The sizes of a model whose layers are streamed; `None` if all are in memory where they compute.
    pub streaming: Option<Streaming>,
}

impl LoadReport {
    /// The report for weights that are generated, not read.
    pub(crate) fn synthetic(config: &ModelConfig, dtype: Dtype, streaming: Option<Streaming>) -> Self {
        let numbers = |spec: &TensorSpec| spec.shape.iter().map(|size| *size as u64).product::<u64>();
        Self {
            parameters: tensors(config).iter().map(numbers).sum(),
            stored_dtype: "none".to_owned(),
            compute_dtype: dtype.to_string(),
            missing: Vec::new(),
            unused: Vec::new(),
            streaming,
        }
    }

    pub(crate) fn new(checked: CheckedWeights, dtype: Dtype, streaming: Option<Streaming>) -> Self {
        Self {
            parameters: checked.parameters,
            stored_dtype: checked.stored.name().to_owned(),
            compute_dtype: dtype.to_string(),
            missing: checked.missing,
            unused: checked.unused,
            streaming,
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
        head: impl FnOnce(&Weights) -> Result<HeadWeights>,
    ) -> Result<Self> {
        let dtype = options.dtype.unwrap_or_default();
        dtype::check_dtype(dtype, device)?;
        let config = files.config();
        let weights = Weights::open(files.weights())?;
        let mut specs = tensors(config);
        let head = head(&weights)?;
        specs.extend_from_slice(&head.tensors);
        let checked = CheckedWeights::new(weights, &specs)?;
        let (engine, streaming) = match device {
            Device::Cpu => {
                let bytes = WeightBytes::new(config, dtype, &head);
                let streaming = bytes.place(options.memory, available_memory)?;
                if streaming.is_some() {
                    bytes.log_streamed(options.memory);
                }
                let placement = LayerPlacement::new(streaming, options.batch_tokens);
                (Engine::Cpu(Box::new(Encoder::load(&checked.weights, config, dtype, placement)?)), streaming)
            }
            Device::Cuda(_) | Device::CudaStages(_) => {
                let encoder = CudaEncoder::load(&checked.weights, config, options, &head, device.gpus())?;
                let streaming = encoder.streaming();
                (Engine::Cuda(Box::new(encoder)), streaming)
            }
        };
        checked.weights.release_all();
        let weights = Arc::clone(&checked.weights);
        Ok(Self { engine, weights, report: LoadReport::new(checked, dtype, streaming) })
    }
}
