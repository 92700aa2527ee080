//! Word, position and token type embeddings.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::{
    batch::{CuSeqlens, PackedBatch},
    config::{ModelConfig, NormPlacement},
    error::{ModelError, Result},
    norm::LayerNorm,
    weights::Weights,
};

const WORDS: &str = "embeddings.word_embeddings.weight";

/// The sum of three embeddings, normed in the post-norm kinds.
#[derive(Debug, Clone)]
pub struct Embeddings {
    words: Words,
    /// `[max_position_embeddings, hidden]`.
    positions: Tensor,
    /// `[1, hidden]`: every token has type 0.
    token_type: Tensor,
    norm: Option<LayerNorm>,
    first_position: usize,
    max_tokens: usize,
    vocab_size: usize,
    dtype: DType,
}

/// The word embeddings are half of a small model: on the CPU the rows of a batch are converted where they lie.
#[derive(Debug, Clone)]
enum Words {
    Mapped(Arc<Weights>),
    Resident(Tensor),
}

impl Embeddings {
    /// Loads the embeddings; on the CPU the word embeddings stay in their file's format.
    pub(crate) fn load(weights: &Arc<Weights>, config: &ModelConfig, dtype: DType, device: &Device) -> Result<Self> {
        let vb = weights.var_builder(dtype, device).pp("embeddings");
        let (hidden, vocab_size) = (config.hidden_size, config.vocab_size);
        let words = if device.is_cpu() {
            Words::Mapped(Arc::clone(weights))
        } else {
            Words::Resident(vb.get((vocab_size, hidden), "word_embeddings.weight")?)
        };
        let token_type = if vb.contains_tensor("token_type_embeddings.weight") {
            vb.get((config.type_vocab_size, hidden), "token_type_embeddings.weight")?.narrow(0, 0, 1)?.contiguous()?
        } else {
            Tensor::zeros((1, hidden), dtype, device)?
        };
        let norm = match config.kind.norm_placement() {
            NormPlacement::Pre => None,
            NormPlacement::Post => Some(LayerNorm::load(hidden, config.layer_norm_eps, vb.pp("LayerNorm"))?),
        };
        Ok(Self {
            words,
            positions: vb.get((config.max_position_embeddings, hidden), "position_embeddings.weight")?,
            token_type,
            norm,
            first_position: config.first_position(),
            max_tokens: config.max_tokens(),
            vocab_size,
            dtype,
        })
    }

    /// Returns `[total_tokens, hidden]`. Positions start anew in every sequence.
    ///
    /// Source: `XLMRobertaXLEmbeddings` and `BertEmbeddings` in transformers 5.23.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a sequence that is too long or an id outside the vocabulary.
    pub fn forward(&self, batch: &PackedBatch, cu_seqlens: &CuSeqlens) -> Result<Tensor> {
        let mut positions = Vec::with_capacity(batch.input_ids.len());
        for (sequence, range) in cu_seqlens.ranges().enumerate() {
            if range.len() > self.max_tokens {
                let message = format!("{} ids, the model takes at most {}", range.len(), self.max_tokens);
                return Err(ModelError::Input { sequence, message });
            }
            if let Some(id) = batch.input_ids[range.clone()].iter().find(|&&id| id as usize >= self.vocab_size) {
                let message = format!("id {id} is not below the vocabulary of {}", self.vocab_size);
                return Err(ModelError::Input { sequence, message });
            }
            positions.extend((0..range.len()).map(|at| (self.first_position + at) as u32));
        }
        let device = self.positions.device();
        let words = self.words(&batch.input_ids, device)?.broadcast_add(&self.token_type)?;
        let positions = self.positions.index_select(&Tensor::new(positions, device)?, 0)?;
        let sum = (words + positions)?;
        match &self.norm {
            Some(norm) => norm.forward(&sum),
            None => Ok(sum),
        }
    }

    fn words(&self, ids: &[u32], device: &Device) -> Result<Tensor> {
        match &self.words {
            Words::Resident(words) => Ok(words.index_select(&Tensor::new(ids, device)?, 0)?),
            Words::Mapped(weights) => {
                let view = weights.view(WORDS).ok_or_else(|| ModelError::Option(format!("{WORDS} was not loaded")))?;
                let rows = Tensor::from_vec(view.rows(ids), (ids.len(), self.positions.dim(1)?), device)?;
                weights.release(WORDS);
                Ok(rows.to_dtype(self.dtype)?)
            }
        }
    }
}
