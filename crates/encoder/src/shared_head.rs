//! A head that stands on another model's hidden states, so that several share one pass.

use std::collections::HashSet;

use candle_core::Tensor;

use crate::{
    batch::CuSeqlens,
    config::ModelConfig,
    cuda::CudaHead,
    device::Device,
    dtype,
    error::{ModelError, Result},
    files::ModelFiles,
    head_config::{HeadConfig, ProblemType},
    heads::{Head, Residence},
    loading::{LoadOptions, LoadReport},
    task::Task,
    task_model::{Logits, labels},
    weights::{CheckedWeights, Weights, tensors},
};

/// A classifier of sequences or tokens, or a question answerer, without its encoder.
///
/// ```
/// use polylance_encoder::{
///     Device, LoadOptions, ModelConfig, ModelFiles, PackedBatch, SentenceEncoder, SharedHead, Task, synthetic,
/// };
///
/// let folder = tempfile::tempdir()?;
/// let checkpoint = synthetic::Checkpoint::new(ModelConfig::tiny()).task(Task::SequenceClassification);
/// checkpoint.labels(&["sport", "news"]).write(folder.path())?;
/// std::fs::write(folder.path().join("tokenizer.json"), "{}")?;
/// let files = ModelFiles::find(folder.path().to_str().expect("a UTF-8 path"))?;
///
/// let options = LoadOptions::default();
/// let encoder = SentenceEncoder::load(&files, &options, &Device::Cpu)?;
/// let head = SharedHead::load(&files, files.config(), Task::SequenceClassification, &options, &Device::Cpu)?;
/// let (vectors, logits) = encoder.embed_with(&PackedBatch::new(&[vec![0, 5, 2]])?, &[head])?;
/// assert_eq!((vectors.len(), logits[0][0].len()), (encoder.dim(), 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SharedHead {
    head: Placed,
    task: Task,
    labels: Vec<String>,
    head_config: HeadConfig,
    report: LoadReport,
}

/// A head where it computes.
#[derive(Debug)]
enum Placed {
    Cpu(Head),
    Cuda(Box<CudaHead>),
}

impl SharedHead {
    /// Loads the head's tensors alone. `backbone` is the geometry of the model whose hidden states it will be given;
    /// whether the weights are the same too, [`ModelFiles::backbone_hash`] tells.
    ///
    /// # Errors
    /// [`ModelError::Option`] for a task whose head needs the vocabulary or another pass, or a backbone of another
    /// kind; [`ModelError::MissingTensor`] when the weights have no such head, [`ModelError::WrongShape`] when it is
    /// for another hidden size.
    pub fn load(
        files: &ModelFiles,
        backbone: &ModelConfig,
        task: Task,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<Self> {
        let head_config = files.head_config();
        head_config.check(task)?;
        if !matches!(task, Task::SequenceClassification | Task::TokenClassification | Task::QuestionAnswering) {
            return Err(ModelError::Option(format!("a head for {task} cannot share the pass of an embedding")));
        }
        let kind = files.config().kind;
        if kind != backbone.kind {
            let (head, backbone) = (kind.model_type(), backbone.kind.model_type());
            let message = format!("the head of {} is for {head}, the backbone is {backbone}", files.name());
            return Err(ModelError::Option(message));
        }
        let dtype = options.dtype.unwrap_or_default();
        dtype::check_dtype(dtype, device)?;
        let labels = labels(task, head_config)?;
        let weights = Weights::open(files.weights())?;
        let specs = Head::tensors(task, backbone, head_config, &weights)?;
        let checked = CheckedWeights::new(weights, &specs)?;
        let weights = &checked.weights;
        let head = match device {
            Device::Cpu => Placed::Cpu(Head::load(task, backbone, head_config, weights, Residence::Mapped)?),
            Device::Cuda(gpu) => {
                Placed::Cuda(Box::new(CudaHead::load(task, backbone, head_config, weights, dtype, gpu)?))
            }
        };
        let mut report = LoadReport::new(checked, dtype, false);
        let backbone: HashSet<String> = tensors(backbone).into_iter().map(|spec| spec.name).collect();
        report.unused.retain(|name| !backbone.contains(name));
        Ok(Self { head, task, labels, head_config: head_config.clone(), report })
    }

    /// `hidden_states`: `[total_tokens, hidden]`. Returns one row-major vector a sequence, as
    /// [`crate::TaskModel::forward`] does.
    ///
    /// # Errors
    /// [`ModelError::Option`] for a head on a GPU, which reads the states there: [`crate::SentenceEncoder::embed_with`].
    pub fn forward(&self, hidden_states: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Logits> {
        match &self.head {
            Placed::Cpu(head) => head.forward(hidden_states, cu_seqlens),
            Placed::Cuda(_) => Err(ModelError::Option("the head is on a GPU, the states are on the CPU".to_owned())),
        }
    }

    /// The head on its GPU.
    ///
    /// # Errors
    /// [`ModelError::Option`] for one on the CPU.
    pub(crate) fn on_gpu(&self) -> Result<&CudaHead> {
        match &self.head {
            Placed::Cpu(_) => Err(ModelError::Option("the head is on the CPU, the states are on a GPU".to_owned())),
            Placed::Cuda(head) => Ok(head),
        }
    }

    /// What the head was loaded for.
    pub fn task(&self) -> Task {
        self.task
    }

    /// The labels, by id; empty for a task without labels.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// How a classifier's logits are meant, where the model says it.
    pub fn problem_type(&self) -> Option<ProblemType> {
        self.head_config.problem_type
    }

    /// What the configuration says of the head.
    pub fn head_config(&self) -> &HeadConfig {
        &self.head_config
    }

    /// What loading found; the backbone's own tensors do not count as unused.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }
}
