//! A model with its head: packed batches in, logits out.

use candle_core::{Device as CandleDevice, Tensor};

use crate::{
    batch::{CuSeqlens, PackedBatch},
    config::ModelConfig,
    cuda::{Attention, CudaEncoder, CudaHead, Request},
    device::Device,
    encoder::Encoder,
    error::{ModelError, Result},
    files::ModelFiles,
    head_config::{HeadConfig, ProblemType},
    heads::{Head, Residence},
    loading::{Engine, LoadOptions, LoadReport, Loaded},
    task::Task,
};

/// A head's logits: one row-major vector a sequence, or a position that was asked for.
pub type Logits = Vec<Vec<f32>>;

/// A loaded model that answers one task. It is immutable, and CPU devices share one.
///
/// ```
/// use polylance_encoder::{Device, LoadOptions, ModelConfig, ModelFiles, PackedBatch, Task, TaskModel, synthetic};
///
/// let folder = tempfile::tempdir()?;
/// let checkpoint = synthetic::Checkpoint::new(ModelConfig::tiny()).task(Task::TokenClassification);
/// checkpoint.labels(&["O", "B-PER", "I-PER"]).write(folder.path())?;
/// std::fs::write(folder.path().join("tokenizer.json"), "{}")?;
///
/// let files = ModelFiles::find(folder.path().to_str().expect("a UTF-8 path"))?;
/// let model = TaskModel::load(&files, Task::TokenClassification, &LoadOptions::default(), &Device::Cpu)?;
/// let logits = model.forward(&PackedBatch::new(&[vec![0, 5, 6, 2], vec![0, 2]])?)?;
/// assert_eq!((logits[0].len(), logits[1].len()), (4 * 3, 2 * 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TaskModel {
    pub(crate) model: Placed,
    task: Task,
    labels: Vec<String>,
    config: ModelConfig,
    head_config: HeadConfig,
    report: LoadReport,
}

/// An encoder and its head where they compute.
#[derive(Debug)]
pub(crate) enum Placed {
    Cpu { encoder: Box<Encoder>, head: Box<Head> },
    Cuda { encoder: Box<CudaEncoder>, head: Box<CudaHead> },
}

impl TaskModel {
    /// Loads a model and the head of `task` onto a device. Options of embedding (pooling, dimensions) do not count.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`] when the weights have no such head, [`ModelError::WrongShape`] when it is for
    /// another hidden size or number of labels, and as in every loading; see [`ModelError`].
    pub fn load(files: &ModelFiles, task: Task, options: &LoadOptions, device: &Device) -> Result<Self> {
        let (config, head_config) = (files.config(), files.head_config());
        head_config.check(task)?;
        let labels = labels(task, head_config)?;
        let Loaded { engine, weights, report } =
            Loaded::new(files, options, device, |weights| Head::tensors(task, config, head_config, weights))?;
        let model = match engine {
            Engine::Cuda(encoder) => {
                let dtype = options.dtype.unwrap_or_default();
                let head = Box::new(CudaHead::load(task, config, head_config, &weights, dtype, encoder.gpu())?);
                Placed::Cuda { encoder, head }
            }
            Engine::Cpu(encoder) => {
                let resident = task == Task::CausalLm && !report.per_layer;
                let residence = if resident { Residence::Resident } else { Residence::Mapped };
                let head = Head::load(task, config, head_config, &weights, residence)?;
                Placed::Cpu { encoder, head: Box::new(head) }
            }
        };
        weights.release_all();
        let (config, head_config) = (config.clone(), head_config.clone());
        Ok(Self { model, task, labels, config, head_config, report })
    }

    /// The logits: one row-major vector a sequence.
    ///
    /// | task | shape |
    /// |---|---|
    /// | sequence classification | `[labels]` |
    /// | token classification | `[tokens, labels]` |
    /// | question answering | `[tokens, 2]`: start, end |
    /// | multiple choice | `[1]` |
    /// | masked and causal language modeling | `[tokens, vocab]`: [`TaskModel::mask_logits`] costs less |
    ///
    /// # Errors
    /// When an input cannot be computed or the device fails.
    pub fn forward(&self, batch: &PackedBatch) -> Result<Logits> {
        if batch.sequences() == 0 {
            return Ok(Vec::new());
        }
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len())?;
        match &self.model {
            Placed::Cpu { encoder, head } => head.forward(&self.hidden_states(encoder, batch)?, &cu_seqlens),
            Placed::Cuda { encoder, head } if head.is_language() => {
                let all: Vec<u32> = (0..batch.input_ids.len() as u32).collect();
                let mut rows = encoder.vocabulary_logits(batch, self.attention(), head, &all)?.into_iter();
                Ok(cu_seqlens.ranges().map(|range| rows.by_ref().take(range.len()).flatten().collect()).collect())
            }
            Placed::Cuda { encoder, head } => {
                let request = Request { heads: &[head], ..Request::default() };
                let mut logits = encoder.compute(batch, self.attention(), request)?.logits;
                Ok(logits.pop().unwrap_or_default())
            }
        }
    }

    /// A language model's logits where they are asked for: one vector `[vocab]` a position, in order of sequences and
    /// then of `positions`, which count tokens within each sequence.
    ///
    /// # Errors
    /// [`ModelError::Option`] for a model of another task, [`ModelError::Input`] for a position outside its sequence;
    /// when an input cannot be computed or the device fails.
    pub fn mask_logits(&self, batch: &PackedBatch, positions: &[Vec<usize>]) -> Result<Logits> {
        self.check_language()?;
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len())?;
        if positions.len() != cu_seqlens.sequences() {
            let message = format!("{} lists of positions for {} sequences", positions.len(), cu_seqlens.sequences());
            return Err(ModelError::Option(message));
        }
        let mut rows = Vec::new();
        for (sequence, (range, positions)) in cu_seqlens.ranges().zip(positions).enumerate() {
            if let Some(outside) = positions.iter().find(|&&position| position >= range.len()) {
                let message = format!("position {outside} is outside its {} ids", range.len());
                return Err(ModelError::Input { sequence, message });
            }
            rows.extend(positions.iter().map(|position| (range.start + position) as u32));
        }
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        match &self.model {
            Placed::Cpu { encoder, head } => {
                let hidden_states = self.hidden_states(encoder, batch)?;
                let chosen = hidden_states.index_select(&Tensor::new(rows, &CandleDevice::Cpu)?, 0)?;
                Ok(head.language()?.forward(&chosen)?.to_vec2()?)
            }
            Placed::Cuda { encoder, head } => {
                in_rising_order(&rows, |rows| encoder.vocabulary_logits(batch, self.attention(), head, rows))
            }
        }
    }

    /// # Errors
    /// [`ModelError::Option`] for a head without a vocabulary.
    fn check_language(&self) -> Result<()> {
        match &self.model {
            Placed::Cpu { head, .. } => head.language().map(|_| ()),
            Placed::Cuda { head, .. } => head.check_language(),
        }
    }

    fn hidden_states(&self, encoder: &Encoder, batch: &PackedBatch) -> Result<Tensor> {
        if self.task == Task::CausalLm { encoder.forward_causal(batch) } else { encoder.forward(batch) }
    }

    fn attention(&self) -> Attention {
        if self.task == Task::CausalLm { Attention::Causal } else { Attention::Both }
    }

    /// The largest number of tokens in a pass; `None` on a CPU, which has no limit.
    pub fn batch_tokens(&self) -> Option<usize> {
        match &self.model {
            Placed::Cpu { .. } => None,
            Placed::Cuda { encoder, .. } => Some(encoder.batch_tokens()),
        }
    }

    /// What the model was loaded for.
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

    /// The model's geometry.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Ids in one input at most, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.config.max_tokens()
    }

    /// What loading found.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }
}

#[cfg(test)]
impl TaskModel {
    /// Makes an id the one that ends a text.
    pub(crate) fn end_at(&mut self, id: u32) {
        self.head_config.eos_token_ids = vec![id];
    }
}

/// The results of `compute` for rows in any order; it is given them in rising order, each once.
fn in_rising_order(rows: &[u32], compute: impl FnOnce(&[u32]) -> Result<Logits>) -> Result<Logits> {
    let mut rising = rows.to_vec();
    rising.sort_unstable();
    rising.dedup();
    let logits = compute(&rising)?;
    let of_row = |row: &u32| rising.binary_search(row).ok().and_then(|at| logits.get(at)).cloned().unwrap_or_default();
    Ok(rows.iter().map(of_row).collect())
}

/// The labels of a task that has them.
pub(crate) fn labels(task: Task, head: &HeadConfig) -> Result<Vec<String>> {
    Ok(match task {
        Task::SequenceClassification | Task::TokenClassification => head.labels()?.to_vec(),
        _ => Vec::new(),
    })
}
