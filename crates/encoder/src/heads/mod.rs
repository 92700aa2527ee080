//! Heads on the encoder's hidden states, one file each.

mod language_model;
mod logits;
mod multiple_choice;
mod pooler;
mod question_answering;
mod sequence_classification;
mod token_classification;
mod vocabulary;

use std::sync::Arc;

use candle_core::Tensor;

use self::logits::{by_row, by_sequence};
pub use self::{
    language_model::LanguageModelHead, logits::Logits, multiple_choice::MultipleChoice,
    question_answering::QuestionAnswering, sequence_classification::SequenceClassifier,
    token_classification::TokenClassifier,
};
pub(crate) use self::{
    language_model::{DecoderTensors, names as language_model_names, tensors as language_model_tensors},
    sequence_classification::names as pooled_names,
    vocabulary::WeightPlacement,
};
use crate::{
    batch::CuSeqlens,
    config::ModelConfig,
    error::{ModelError, Result},
    head_config::HeadConfig,
    head_kind::HeadKind,
    weights::{TensorSpec, Weights},
};

/// A loaded head of any kind.
#[derive(Debug)]
pub(crate) enum Head {
    Sequence(SequenceClassifier),
    Token(TokenClassifier),
    Question(QuestionAnswering),
    Language(LanguageModelHead),
    Choice(MultipleChoice),
}

impl Head {
    /// The tensors that [`Head::load`] reads. Those of a language model depend on which of two names the weights have.
    pub(crate) fn tensors(
        kind: HeadKind,
        config: &ModelConfig,
        head: &HeadConfig,
        weights: &Weights,
    ) -> Result<Vec<TensorSpec>> {
        Ok(match kind {
            HeadKind::MaskedLm | HeadKind::CausalLm => {
                language_model_tensors(config, &DecoderTensors::find(config, head.tie_word_embeddings, weights))
            }
            _ => tensors(kind, config, Shape::of(kind, head)?),
        })
    }

    /// Loads the head from weights whose tensors were checked.
    pub(crate) fn load(
        kind: HeadKind,
        config: &ModelConfig,
        head: &HeadConfig,
        weights: &Arc<Weights>,
        placement: WeightPlacement,
    ) -> Result<Self> {
        let vb = weights.var_builder();
        Ok(match kind {
            HeadKind::SequenceClassification => {
                let labels = head.labels()?.len();
                Self::Sequence(match head.fitted().filter(|fitted| fitted.head.is_some()) {
                    Some(fitted) => SequenceClassifier::load_fitted(vb, config, labels, fitted)?,
                    None => SequenceClassifier::load(vb, config, labels)?,
                })
            }
            HeadKind::TokenClassification => Self::Token(TokenClassifier::load(vb, config, head.labels()?.len())?),
            HeadKind::QuestionAnswering => Self::Question(QuestionAnswering::load(vb, config)?),
            HeadKind::MultipleChoice => Self::Choice(MultipleChoice::load(vb, config)?),
            HeadKind::MaskedLm | HeadKind::CausalLm => {
                let tensors = DecoderTensors::find(config, head.tie_word_embeddings, weights);
                Self::Language(LanguageModelHead::from_weights(weights, config, &tensors, placement)?)
            }
        })
    }

    /// One row-major vector per sequence, in f32: `[labels]`, `[tokens, labels]`, `[tokens, 2]`, `[tokens, vocab]`
    /// or `[1]`.
    pub(crate) fn forward(&self, hidden_states: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Logits> {
        match self {
            Self::Sequence(head) => by_row(&head.forward(hidden_states, cu_seqlens)?),
            Self::Choice(head) => by_row(&head.forward(hidden_states, cu_seqlens)?),
            Self::Token(head) => by_sequence(&head.forward(hidden_states)?, cu_seqlens),
            Self::Question(head) => by_sequence(&head.forward(hidden_states)?, cu_seqlens),
            Self::Language(head) => by_sequence(&head.forward(hidden_states)?, cu_seqlens),
        }
    }

    /// The head of a language model.
    pub(crate) fn language(&self) -> Result<&LanguageModelHead> {
        match self {
            Self::Language(head) => Ok(head),
            _ => Err(ModelError::Option("the head of the model has no vocabulary".to_owned())),
        }
    }
}

/// The shape of a head without a vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The class of transformers, with this many labels if it has labels.
    Plain { labels: usize },
    /// One linear map of the pooled vector.
    Fitted { labels: usize },
}

impl Shape {
    fn of(kind: HeadKind, head: &HeadConfig) -> Result<Self> {
        Ok(match kind {
            HeadKind::SequenceClassification if head.fitted().is_some_and(|fitted| fitted.head.is_some()) => {
                Self::Fitted { labels: head.labels()?.len() }
            }
            HeadKind::SequenceClassification | HeadKind::TokenClassification => {
                Self::Plain { labels: head.labels()?.len() }
            }
            _ => Self::Plain { labels: 0 },
        })
    }
}

/// The tensors of a head, in the order of use; those of language models with the decoder tied.
pub(crate) fn tensors(kind: HeadKind, config: &ModelConfig, shape: Shape) -> Vec<TensorSpec> {
    match (kind, shape) {
        (HeadKind::SequenceClassification, Shape::Plain { labels }) => sequence_classification::tensors(config, labels),
        (HeadKind::SequenceClassification, Shape::Fitted { labels }) => {
            TensorSpec::linear("classifier", labels, config.hidden_size).into()
        }
        (HeadKind::TokenClassification, Shape::Plain { labels } | Shape::Fitted { labels }) => {
            token_classification::tensors(config, labels)
        }
        (HeadKind::QuestionAnswering, _) => question_answering::tensors(config),
        (HeadKind::MultipleChoice, _) => multiple_choice::tensors(config),
        (HeadKind::MaskedLm | HeadKind::CausalLm, _) => language_model_tensors(config, &DecoderTensors::tied(config)),
    }
}
