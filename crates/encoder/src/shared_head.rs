//! A head on another model's hidden states, so that several heads share one pass.

use std::collections::HashSet;

use candle_core::Tensor;

use crate::{
    batch::CuSeqlens,
    config::ModelConfig,
    cuda::{CudaHead, TiedEmbeddings},
    device::Device,
    dtype,
    error::{ModelError, Result},
    files::ModelFiles,
    head_info::{HeadInfo, labels},
    head_kind::HeadKind,
    heads::{Head, Logits, WeightPlacement},
    loading::{LoadOptions, LoadReport},
    weights::{CheckedWeights, Weights, tensors},
};

/// A classifier of sequences or tokens, or a question answerer, without its encoder.
///
/// ```
/// use polylance_encoder::{
///     Device, LoadOptions, ModelConfig, ModelFiles, PackedBatch, SentenceEncoder, SharedHead, HeadKind, synthetic,
/// };
///
/// let folder = tempfile::tempdir()?;
/// let checkpoint = synthetic::Checkpoint::new(ModelConfig::tiny()).head(HeadKind::SequenceClassification);
/// checkpoint.labels(&["sport", "news"]).write(folder.path())?;
/// std::fs::write(folder.path().join("tokenizer.json"), "{}")?;
/// let files = ModelFiles::find(folder.path().to_str().expect("a UTF-8 path"))?;
///
/// let options = LoadOptions::default();
/// let encoder = SentenceEncoder::load(&files, &options, &Device::Cpu)?;
/// let head = SharedHead::load(&files, files.config(), HeadKind::SequenceClassification, &options, &Device::Cpu)?;
/// let (vectors, logits) = encoder.embed_with(&PackedBatch::new(&[vec![0, 5, 2]])?, &[head])?;
/// assert_eq!((vectors.len(), logits[0][0].len()), (encoder.dim(), 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SharedHead {
    layers: Placed,
    info: HeadInfo,
}

/// A head where it computes.
#[derive(Debug)]
enum Placed {
    Cpu(Head),
    Cuda(Box<CudaHead>),
}

impl SharedHead {
    /// Loads the head's tensors alone. `backbone` is the geometry of the model whose hidden states it will be given;
    /// compare the weights with [`ModelFiles::backbone_hash`]. `device` is that of the states
    /// ([`crate::SentenceEncoder::head_device`]).
    ///
    /// # Errors
    /// [`ModelError::Option`] for a kind of head that needs the vocabulary or another pass, or a backbone of another
    /// kind; [`ModelError::MissingTensor`] when the weights have no such head, [`ModelError::WrongShape`] when it is
    /// for another hidden size.
    pub fn load(
        files: &ModelFiles,
        backbone: &ModelConfig,
        kind: HeadKind,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<Self> {
        let head_config = files.head_config();
        head_config.check(kind)?;
        if !matches!(
            kind,
            HeadKind::SequenceClassification | HeadKind::TokenClassification | HeadKind::QuestionAnswering
        ) {
            return Err(ModelError::Option(format!("a head for {kind} cannot share the pass of an embedding")));
        }
        let model_kind = files.config().kind;
        if model_kind != backbone.kind {
            let (head, backbone) = (model_kind.model_type(), backbone.kind.model_type());
            let message = format!("the head of {} is for {head}, the backbone is {backbone}", files.name());
            return Err(ModelError::Option(message));
        }
        let dtype = options.dtype.unwrap_or_default();
        dtype::check_dtype(dtype, device)?;
        let labels = labels(kind, head_config)?;
        let weights = Weights::open(files.weights())?;
        let specs = Head::tensors(kind, backbone, head_config, &weights)?;
        let checked = CheckedWeights::new(weights, &specs)?;
        let weights = &checked.weights;
        let layers = match device {
            Device::Cpu => Placed::Cpu(Head::load(kind, backbone, head_config, weights, WeightPlacement::Mapped)?),
            Device::Cuda(gpu) => {
                let tied = TiedEmbeddings::Shared;
                Placed::Cuda(Box::new(CudaHead::load(kind, backbone, head_config, weights, dtype, tied, gpu)?))
            }
            Device::CudaStages(_) => {
                let message = "a head is on one GPU, the one that has the last layers of its model";
                return Err(ModelError::Option(message.to_owned()));
            }
        };
        let mut report = LoadReport::new(checked, dtype, None);
        let backbone: HashSet<String> = tensors(backbone).into_iter().map(|spec| spec.name).collect();
        report.unused.retain(|name| !backbone.contains(name));
        Ok(Self { layers, info: HeadInfo::new(kind, labels, head_config.clone(), report) })
    }

    /// `hidden_states`: `[total_tokens, hidden]`. Returns one row-major vector per sequence, as
    /// [`crate::HeadModel::forward`] does.
    ///
    /// # Errors
    /// [`ModelError::Option`] for a head on a GPU, which reads the states there:
    /// [`crate::SentenceEncoder::embed_with`].
    pub fn forward(&self, hidden_states: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Logits> {
        match &self.layers {
            Placed::Cpu(head) => head.forward(hidden_states, cu_seqlens),
            Placed::Cuda(_) => Err(ModelError::Option("the head is on a GPU, the states are on the CPU".to_owned())),
        }
    }

    /// The head on its GPU.
    ///
    /// # Errors
    /// [`ModelError::Option`] for one on the CPU.
    pub(crate) fn on_gpu(&self) -> Result<&CudaHead> {
        match &self.layers {
            Placed::Cpu(_) => Err(ModelError::Option("the head is on the CPU, the states are on a GPU".to_owned())),
            Placed::Cuda(head) => Ok(head),
        }
    }

    /// The head's kind, labels and configuration. The backbone's own tensors do not count as unused in its report.
    pub fn info(&self) -> &HeadInfo {
        &self.info
    }
}
