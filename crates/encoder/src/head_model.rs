//! A model with its head: packed batches in, logits out.

use std::sync::Arc;

use candle_core::{Device as CandleDevice, Tensor};
use polylance_cuda::Gpu;

use crate::{
    batch::{CuSeqlens, PackedBatch},
    config::ModelConfig,
    cuda::{self, Attention, CudaEncoder, CudaHead, Request},
    device::Device,
    encoder::{EncodedPart, Encoder},
    error::{ModelError, Result},
    files::ModelFiles,
    head_info::{HeadInfo, labels},
    head_kind::HeadKind,
    heads::{Head, Logits, WeightPlacement},
    loading::{Engine, LoadOptions, LoadReport, Loaded},
    residency::HeadWeights,
    weights::Weights,
};

/// A loaded model with one head. It is immutable, and CPU devices share one.
///
/// ```
/// use polylance_encoder::{Device, LoadOptions, ModelConfig, ModelFiles, PackedBatch, HeadKind, HeadModel, synthetic};
///
/// let folder = tempfile::tempdir()?;
/// let checkpoint = synthetic::Checkpoint::new(ModelConfig::tiny()).head(HeadKind::TokenClassification);
/// checkpoint.labels(&["O", "B-PER", "I-PER"]).write(folder.path())?;
/// std::fs::write(folder.path().join("tokenizer.json"), "{}")?;
///
/// let files = ModelFiles::find(folder.path().to_str().expect("a UTF-8 path"))?;
/// let model = HeadModel::load(&files, HeadKind::TokenClassification, &LoadOptions::default(), &Device::Cpu)?;
/// let logits = model.forward(&PackedBatch::new(&[vec![0, 5, 6, 2], vec![0, 2]])?)?;
/// assert_eq!((logits[0].len(), logits[1].len()), (4 * 3, 2 * 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct HeadModel {
    pub(crate) model: Placed,
    head: HeadInfo,
    config: ModelConfig,
}

/// An encoder and its head where they compute.
#[derive(Debug)]
pub(crate) enum Placed {
    Cpu { encoder: Box<Encoder>, head: Box<Head> },
    Cuda { encoder: Box<CudaEncoder>, head: Box<CudaHead> },
}

impl HeadModel {
    /// Loads a model and its head of `kind` onto a device. Options of embedding (pooling, dimensions) are ignored.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`] when the weights have no such head, [`ModelError::WrongShape`] when it is for
    /// another hidden size or number of labels, and as in every loading; see [`ModelError`].
    pub fn load(files: &ModelFiles, kind: HeadKind, options: &LoadOptions, device: &Device) -> Result<Self> {
        let (config, head_config) = (files.config(), files.head_config());
        head_config.check(kind)?;
        let labels = labels(kind, head_config)?;
        let Loaded { engine, weights, report } =
            Loaded::new(files, options, device, |weights| HeadWeights::of_head(kind, config, head_config, weights))?;
        let model = match engine {
            Engine::Cuda(encoder) => {
                let dtype = options.dtype.unwrap_or_default();
                let head = Box::new(encoder.load_head(kind, head_config, &weights, dtype)?);
                Placed::Cuda { encoder, head }
            }
            Engine::Cpu(encoder) => {
                let resident = kind == HeadKind::CausalLm && report.streaming.is_none();
                let placement = if resident { WeightPlacement::Resident } else { WeightPlacement::Mapped };
                let head = Head::load(kind, config, head_config, &weights, placement)?;
                Placed::Cpu { encoder, head: Box::new(head) }
            }
        };
        weights.release_all();
        Ok(Self { model, head: HeadInfo::new(kind, labels, head_config.clone(), report), config: config.clone() })
    }

    /// Whether a model should be spread over these GPUs, as [`crate::SentenceEncoder::is_spread`].
    ///
    /// # Errors
    /// As [`HeadModel::load`]; when a device fails.
    pub fn is_spread(files: &ModelFiles, kind: HeadKind, options: &LoadOptions, gpus: &[Arc<Gpu>]) -> Result<bool> {
        files.head_config().check(kind)?;
        let (config, weights) = (files.config(), Weights::open(files.weights())?);
        let head = HeadWeights::of_head(kind, config, files.head_config(), &weights)?;
        cuda::is_spread(gpus, config, options, &head)
    }

    /// The logits: one row-major vector per sequence.
    ///
    /// | head | shape |
    /// |---|---|
    /// | sequence classification | `[labels]` |
    /// | token classification | `[tokens, labels]` |
    /// | question answering | `[tokens, 2]`: start, end |
    /// | multiple choice | `[1]` |
    /// | masked and causal language modeling | `[tokens, vocab]`: [`HeadModel::mask_logits`] costs less |
    ///
    /// # Errors
    /// When an input cannot be computed or the device fails.
    pub fn forward(&self, batch: &PackedBatch) -> Result<Logits> {
        if batch.sequences() == 0 {
            return Ok(Vec::new());
        }
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len())?;
        match &self.model {
            Placed::Cpu { encoder, head } => {
                let mut logits = Logits::new();
                self.each_part(encoder, batch, |EncodedPart { hidden_states, cu_seqlens, .. }| {
                    logits.extend(head.forward(&hidden_states, &cu_seqlens)?);
                    Ok(())
                })?;
                Ok(logits)
            }
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

    /// A language model's logits at some positions: one vector `[vocab]` per position, in the order of the sequences
    /// and then of `positions`, which count tokens within each sequence.
    ///
    /// # Errors
    /// [`ModelError::Option`] for another kind of head, [`ModelError::Input`] for a position outside its sequence;
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
                let message = format!("position {outside} is outside its {} tokens", range.len());
                return Err(ModelError::Input { sequence, message });
            }
            rows.extend(positions.iter().map(|position| (range.start + position) as u32));
        }
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        match &self.model {
            Placed::Cpu { encoder, head } => {
                let (mut chosen, mut rest) = (Vec::new(), &rows[..]);
                self.each_part(encoder, batch, |EncodedPart { hidden_states, first_token, .. }| {
                    // The rows of a part are neighbours, because they are sorted by sequence.
                    let (first, end) = (first_token as u32, (first_token + hidden_states.dim(0)?) as u32);
                    let of_part = rest.iter().take_while(|row| (first..end).contains(row)).count();
                    let (rows, others) = rest.split_at(of_part);
                    rest = others;
                    if !rows.is_empty() {
                        let rows: Vec<u32> = rows.iter().map(|row| row - first).collect();
                        chosen.push(hidden_states.index_select(&Tensor::new(rows, &CandleDevice::Cpu)?, 0)?);
                    }
                    Ok(())
                })?;
                Ok(head.language()?.forward(&Tensor::cat(&chosen, 0)?)?.to_vec2()?)
            }
            Placed::Cuda { encoder, head } => {
                in_ascending_order(&rows, |rows| encoder.vocabulary_logits(batch, self.attention(), head, rows))
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

    /// Calls `read` with the hidden states of the batch, part by part.
    fn each_part(
        &self,
        encoder: &Encoder,
        batch: &PackedBatch,
        mut read: impl FnMut(EncodedPart) -> Result<()>,
    ) -> Result<()> {
        if self.head.kind() != HeadKind::CausalLm {
            return encoder.each_part(batch, read);
        }
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len())?;
        read(EncodedPart { hidden_states: encoder.forward_causal(batch)?, cu_seqlens, first_token: 0 })
    }

    fn attention(&self) -> Attention {
        if self.head.kind() == HeadKind::CausalLm { Attention::Causal } else { Attention::Both }
    }

    /// The largest number of tokens in a pass; `None` on a CPU, which has no limit.
    pub fn batch_tokens(&self) -> Option<usize> {
        match &self.model {
            Placed::Cpu { .. } => None,
            Placed::Cuda { encoder, .. } => Some(encoder.batch_tokens()),
        }
    }

    /// The head's kind, labels and configuration.
    pub fn head(&self) -> &HeadInfo {
        &self.head
    }

    /// The model's geometry.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The largest number of tokens in one input, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.config.max_tokens()
    }

    /// The report of the loading.
    pub fn report(&self) -> &LoadReport {
        self.head.report()
    }
}

#[cfg(test)]
impl HeadModel {
    /// Makes an id the one that ends a text.
    pub(crate) fn end_at(&mut self, id: u32) {
        self.head.end_at(id);
    }
}

/// The results of `compute` for rows in any order; `compute` gets each row once, in ascending order.
fn in_ascending_order(rows: &[u32], compute: impl FnOnce(&[u32]) -> Result<Logits>) -> Result<Logits> {
    let mut ascending = rows.to_vec();
    ascending.sort_unstable();
    ascending.dedup();
    let logits = compute(&ascending)?;
    let of_row =
        |row: &u32| ascending.binary_search(row).ok().and_then(|at| logits.get(at)).cloned().unwrap_or_default();
    Ok(rows.iter().map(of_row).collect())
}
