//! The head of language models, masked and causal: one logit per token of the vocabulary.

use std::sync::Arc;

use candle_core::Tensor;
use candle_nn::VarBuilder;

use super::vocabulary::{self, Vocabulary, WeightPlacement};
use crate::{
    config::{ModelConfig, ModelKind},
    embeddings::WORD_EMBEDDINGS,
    error::Result,
    linear::Linear,
    norm::LayerNorm,
    weights::{TensorSpec, Weights},
};

/// A map, GELU and a norm, and then the vocabulary.
#[derive(Debug, Clone)]
pub struct LanguageModelHead {
    dense: Linear,
    norm: LayerNorm,
    vocabulary: Vocabulary,
}

/// Hugging Face's names of one kind.
pub(crate) struct Names {
    pub(crate) dense: &'static str,
    pub(crate) norm: &'static str,
    decoder_weight: &'static str,
    decoder_bias: &'static str,
    bias: &'static str,
}

pub(crate) fn names(kind: ModelKind) -> Names {
    match kind {
        ModelKind::XlmRobertaXl | ModelKind::XlmRoberta => Names {
            dense: "lm_head.dense",
            norm: "lm_head.layer_norm",
            decoder_weight: "lm_head.decoder.weight",
            decoder_bias: "lm_head.decoder.bias",
            bias: "lm_head.bias",
        },
        ModelKind::Bert => Names {
            dense: "cls.predictions.transform.dense",
            norm: "cls.predictions.transform.LayerNorm",
            decoder_weight: "cls.predictions.decoder.weight",
            decoder_bias: "cls.predictions.decoder.bias",
            bias: "cls.predictions.bias",
        },
    }
}

/// The tensors of the last map: the table may be the word embeddings, and the bias has two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecoderTensors {
    pub(crate) table: &'static str,
    pub(crate) bias: &'static str,
}

impl DecoderTensors {
    /// The table is the word embeddings.
    pub(crate) fn tied(config: &ModelConfig) -> Self {
        Self { table: WORD_EMBEDDINGS, bias: names(config.kind).bias }
    }

    /// The table is a separate tensor.
    pub(crate) fn untied(config: &ModelConfig) -> Self {
        let names = names(config.kind);
        Self { table: names.decoder_weight, bias: names.decoder_bias }
    }

    /// The tensors that the weights have. As in transformers, a tied table that is stored again with other numbers is
    /// no longer tied, and a bias may have either name.
    ///
    /// Source: `PreTrainedModel.tie_weights` in transformers 5.23.
    pub(crate) fn find(config: &ModelConfig, tie_word_embeddings: bool, weights: &Weights) -> Self {
        let names = names(config.kind);
        let own = weights.contains(names.decoder_weight) && !weights.same(WORD_EMBEDDINGS, names.decoder_weight);
        let table = if own || !tie_word_embeddings { names.decoder_weight } else { WORD_EMBEDDINGS };
        let bias = if weights.contains(names.decoder_bias) { names.decoder_bias } else { names.bias };
        Self { table, bias }
    }
}

/// The tensors that a head with this decoder reads, except the word embeddings.
pub(crate) fn tensors(config: &ModelConfig, decoder: &DecoderTensors) -> Vec<TensorSpec> {
    let names = names(config.kind);
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let mut specs = [TensorSpec::linear(names.dense, hidden, hidden), TensorSpec::norm(names.norm, hidden)].concat();
    if decoder.table != WORD_EMBEDDINGS {
        specs.push(TensorSpec { name: decoder.table.to_owned(), shape: vec![vocab, hidden] });
    }
    specs.push(TensorSpec { name: decoder.bias.to_owned(), shape: vec![vocab] });
    specs
}

impl LanguageModelHead {
    /// Loads a head whose last map is a separate tensor.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::{VarBuilder, VarMap};
    /// use polylance_encoder::{LanguageModelHead, ModelConfig};
    ///
    /// let config = ModelConfig::tiny();
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let head = LanguageModelHead::load(vb, &config)?;
    /// let hidden_states = Tensor::randn(0f32, 1., (5, config.hidden_size), &Device::Cpu)?;
    /// assert_eq!(head.forward(&hidden_states)?.dims(), [5, config.vocab_size]);
    /// # Ok::<(), polylance_encoder::ModelError>(())
    /// ```
    pub fn load(vb: VarBuilder<'_>, config: &ModelConfig) -> Result<Self> {
        let names = names(config.kind);
        let table = vb.get((config.vocab_size, config.hidden_size), names.decoder_weight)?;
        let bias = vb.get(config.vocab_size, names.decoder_bias)?;
        Self::with(vb, config, Vocabulary::resident(table, bias))
    }

    /// Loads a head with the last map of `decoder`; the table can stay in its file.
    pub(crate) fn from_weights(
        weights: &Arc<Weights>,
        config: &ModelConfig,
        decoder: &DecoderTensors,
        placement: WeightPlacement,
    ) -> Result<Self> {
        let vb = weights.var_builder();
        let bias = vb.get(config.vocab_size, decoder.bias)?;
        let shape = (config.vocab_size, config.hidden_size);
        let vocabulary = match placement {
            WeightPlacement::Mapped => Vocabulary::mapped(weights, decoder.table, shape, bias),
            WeightPlacement::Resident => Vocabulary::resident(vocabulary::read(weights, decoder.table, shape)?, bias),
        };
        Self::with(vb, config, vocabulary)
    }

    fn with(vb: VarBuilder<'_>, config: &ModelConfig, vocabulary: Vocabulary) -> Result<Self> {
        let names = names(config.kind);
        Ok(Self {
            dense: Linear::load(config.hidden_size, config.hidden_size, vb.pp(names.dense))?,
            norm: LayerNorm::load(config.hidden_size, config.layer_norm_eps, vb.pp(names.norm))?,
            vocabulary,
        })
    }

    /// `hidden_states`: `[rows, hidden]`. Returns the logits: `[rows, vocab]`. The vocabulary is large: pass
    /// only the rows that are needed.
    ///
    /// Source: `XLMRobertaXLLMHead` and `BertLMPredictionHead` in transformers 5.23.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, hidden_states: &Tensor) -> Result<Tensor> {
        self.vocabulary.forward(&self.norm.forward(&self.dense.forward_gelu(hidden_states)?)?)
    }
}
