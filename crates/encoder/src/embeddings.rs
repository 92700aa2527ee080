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

pub(crate) const WORD_EMBEDDINGS: &str = "embeddings.word_embeddings.weight";

/// The sum of three embeddings, normalized in the post-norm kinds.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// The word embeddings, which are half of a small model, stay in the file: only the rows of a batch are converted.
    words: Arc<Weights>,
    /// `[max_position_embeddings, hidden]`.
    positions: Tensor,
    /// `[type_vocab_size, hidden]`.
    token_types: Tensor,
    /// Its first row, `[1, hidden]`: the type of every token unless a batch has types.
    first_type: Tensor,
    norm: Option<LayerNorm>,
    config: ModelConfig,
}

impl Embeddings {
    /// Loads the embeddings; the word embeddings keep the format of their file.
    pub(crate) fn load(weights: &Arc<Weights>, config: &ModelConfig) -> Result<Self> {
        let vb = weights.var_builder().pp("embeddings");
        let hidden = config.hidden_size;
        let token_types = if vb.contains_tensor("token_type_embeddings.weight") {
            vb.get((config.type_vocab_size, hidden), "token_type_embeddings.weight")?
        } else {
            Tensor::zeros((config.type_vocab_size, hidden), DType::F32, &Device::Cpu)?
        };
        let norm = match config.kind.norm_placement() {
            NormPlacement::Pre => None,
            NormPlacement::Post => Some(LayerNorm::load(hidden, config.layer_norm_eps, vb.pp("LayerNorm"))?),
        };
        Ok(Self {
            words: Arc::clone(weights),
            positions: vb.get((config.max_position_embeddings, hidden), "position_embeddings.weight")?,
            first_type: token_types.narrow(0, 0, 1)?.contiguous()?,
            token_types,
            norm,
            config: config.clone(),
        })
    }

    /// Bytes in memory. The word embeddings stay in their file.
    pub(crate) fn bytes_for(config: &ModelConfig) -> u64 {
        let rows = config.max_position_embeddings + config.type_vocab_size + 1;
        let norm = match config.kind.norm_placement() {
            NormPlacement::Pre => 0,
            NormPlacement::Post => LayerNorm::bytes_for(config.hidden_size),
        };
        (rows * config.hidden_size * size_of::<f32>()) as u64 + norm
    }

    /// Returns `[total_tokens, hidden]`. Positions start again in every sequence.
    ///
    /// Source: `XLMRobertaXLEmbeddings` and `BertEmbeddings` in transformers 5.23.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a sequence that is too long, or an id or a token type that the model does not have.
    pub fn forward(&self, batch: &PackedBatch, cu_seqlens: &CuSeqlens) -> Result<Tensor> {
        let mut positions = Vec::with_capacity(batch.input_ids.len());
        for (sequence, range) in cu_seqlens.ranges().enumerate() {
            if range.len() > self.config.max_tokens() {
                let message = format!("{} tokens, the model takes at most {}", range.len(), self.config.max_tokens());
                return Err(ModelError::Input { sequence, message });
            }
            let ids = &batch.input_ids[range];
            self.check_ids(sequence, ids)?;
            positions.extend(self.config.positions(ids));
        }
        let words = self.words(&batch.input_ids)?;
        let typed = match &batch.token_types {
            // A model with one type ignores the types of the tokenizer.
            Some(types) if self.token_types.dim(0)? > 1 => (words + self.types(types, cu_seqlens)?)?,
            _ => words.broadcast_add(&self.first_type)?,
        };
        self.place(&typed, positions)
    }

    /// The embeddings of one sequence's tokens at positions from `first` on: `[tokens, hidden]`.
    pub(crate) fn forward_at(&self, ids: &[u32], first: usize) -> Result<Tensor> {
        self.check_ids(0, ids)?;
        let words = self.words(ids)?.broadcast_add(&self.first_type)?;
        self.place(&words, (first..first + ids.len()).map(|position| position as u32).collect())
    }

    fn check_ids(&self, sequence: usize, ids: &[u32]) -> Result<()> {
        let Some(id) = ids.iter().find(|&&id| id as usize >= self.config.vocab_size) else { return Ok(()) };
        let message = format!("id {id} is not below the vocabulary of {}", self.config.vocab_size);
        Err(ModelError::Input { sequence, message })
    }

    /// Adds the positions and normalizes the sum.
    fn place(&self, embedded: &Tensor, positions: Vec<u32>) -> Result<Tensor> {
        let positions = self.positions.index_select(&Tensor::new(positions, self.positions.device())?, 0)?;
        let sum = (embedded + positions)?;
        match &self.norm {
            Some(norm) => norm.forward(&sum),
            None => Ok(sum),
        }
    }

    fn types(&self, types: &[u32], cu_seqlens: &CuSeqlens) -> Result<Tensor> {
        let known = self.token_types.dim(0)?;
        let refuse = |sequence, message| Err(ModelError::Input { sequence, message });
        for (sequence, range) in cu_seqlens.ranges().enumerate() {
            let Some(types) = types.get(range) else {
                return refuse(sequence, format!("the batch has only {} token types", types.len()));
            };
            if let Some(other) = types.iter().find(|&&other| other as usize >= known) {
                return refuse(sequence, format!("token type {other}, the model has {known}"));
            }
        }
        Ok(self.token_types.index_select(&Tensor::new(types, self.token_types.device())?, 0)?)
    }

    fn words(&self, ids: &[u32]) -> Result<Tensor> {
        let view = self
            .words
            .view(WORD_EMBEDDINGS)
            .ok_or_else(|| ModelError::Option(format!("{WORD_EMBEDDINGS} was not loaded")))?;
        let rows = Tensor::from_vec(view.rows(ids), (ids.len(), self.positions.dim(1)?), &Device::Cpu)?;
        self.words.release(WORD_EMBEDDINGS);
        Ok(rows)
    }
}
