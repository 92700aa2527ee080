//! Heads: what stands on the encoder's hidden states, one file each.

mod language_model;
mod multiple_choice;
mod pooler;
mod question_answering;
mod sequence_classification;
mod token_classification;
mod vocabulary;

use std::sync::Arc;

use candle_core::Tensor;

pub use self::{
    language_model::LanguageModelHead, multiple_choice::MultipleChoice, question_answering::QuestionAnswering,
    sequence_classification::SequenceClassifier, token_classification::TokenClassifier,
};
pub(crate) use self::{
    language_model::{DecoderTensors, names as language_model_names, tensors as language_model_tensors},
    sequence_classification::names as pooled_names,
    vocabulary::Residence,
};
use crate::{
    batch::CuSeqlens,
    config::ModelConfig,
    error::{ModelError, Result},
    head_config::HeadConfig,
    task::Task,
    task_model::Logits,
    weights::{TensorSpec, Weights},
};

/// A loaded head of any task.
#[derive(Debug)]
pub(crate) enum Head {
    Sequence(SequenceClassifier),
    Token(TokenClassifier),
    Question(QuestionAnswering),
    Language(LanguageModelHead),
    Choice(MultipleChoice),
}

impl Head {
    /// The tensors that [`Head::load`] reads. A language model's depend on which of two names the weights have.
    pub(crate) fn tensors(
        task: Task,
        config: &ModelConfig,
        head: &HeadConfig,
        weights: &Weights,
    ) -> Result<Vec<TensorSpec>> {
        Ok(match task {
            Task::MaskedLm | Task::CausalLm => {
                language_model_tensors(config, &DecoderTensors::find(config, head.tie_word_embeddings, weights))
            }
            _ => tensors(task, config, Shape::of(task, head)?),
        })
    }

    /// Loads the head from weights whose tensors were checked.
    pub(crate) fn load(
        task: Task,
        config: &ModelConfig,
        head: &HeadConfig,
        weights: &Arc<Weights>,
        residence: Residence,
    ) -> Result<Self> {
        let vb = weights.var_builder();
        Ok(match task {
            Task::SequenceClassification => {
                let labels = head.labels()?.len();
                Self::Sequence(match head.fitted().filter(|fitted| fitted.head.is_some()) {
                    Some(fitted) => SequenceClassifier::load_fitted(vb, config, labels, fitted)?,
                    None => SequenceClassifier::load(vb, config, labels)?,
                })
            }
            Task::TokenClassification => Self::Token(TokenClassifier::load(vb, config, head.labels()?.len())?),
            Task::QuestionAnswering => Self::Question(QuestionAnswering::load(vb, config)?),
            Task::MultipleChoice => Self::Choice(MultipleChoice::load(vb, config)?),
            Task::MaskedLm | Task::CausalLm => {
                let tensors = DecoderTensors::find(config, head.tie_word_embeddings, weights);
                Self::Language(LanguageModelHead::from_weights(weights, config, &tensors, residence)?)
            }
        })
    }

    /// One row-major vector a sequence, in f32: `[labels]`, `[tokens, labels]`, `[tokens, 2]`, `[tokens, vocab]`
    /// or `[1]`.
    pub(crate) fn forward(&self, hidden_states: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Logits> {
        match self {
            Self::Sequence(head) => rows(&head.forward(hidden_states, cu_seqlens)?),
            Self::Choice(head) => rows(&head.forward(hidden_states, cu_seqlens)?),
            Self::Token(head) => by_sequence(&head.forward(hidden_states)?, cu_seqlens),
            Self::Question(head) => by_sequence(&head.forward(hidden_states)?, cu_seqlens),
            Self::Language(head) => by_sequence(&head.forward(hidden_states)?, cu_seqlens),
        }
    }

    /// The head of a language model.
    pub(crate) fn language(&self) -> Result<&LanguageModelHead> {
        match self {
            Self::Language(head) => Ok(head),
            _ => Err(ModelError::Option("the model was loaded for a task without a vocabulary".to_owned())),
        }
    }
}

/// How a head that knows nothing of the vocabulary is shaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The class of transformers, with this many labels where it has labels.
    Plain { labels: usize },
    /// One linear map of the pooled vector.
    Fitted { labels: usize },
}

impl Shape {
    fn of(task: Task, head: &HeadConfig) -> Result<Self> {
        Ok(match task {
            Task::SequenceClassification if head.fitted().is_some_and(|fitted| fitted.head.is_some()) => {
                Self::Fitted { labels: head.labels()?.len() }
            }
            Task::SequenceClassification | Task::TokenClassification => Self::Plain { labels: head.labels()?.len() },
            _ => Self::Plain { labels: 0 },
        })
    }
}

/// The tensors of a head, in the order they are used; those of language models with the decoder tied.
pub(crate) fn tensors(task: Task, config: &ModelConfig, shape: Shape) -> Vec<TensorSpec> {
    match (task, shape) {
        (Task::SequenceClassification, Shape::Plain { labels }) => sequence_classification::tensors(config, labels),
        (Task::SequenceClassification, Shape::Fitted { labels }) => {
            TensorSpec::linear("classifier", labels, config.hidden_size).into()
        }
        (Task::TokenClassification, Shape::Plain { labels } | Shape::Fitted { labels }) => {
            token_classification::tensors(config, labels)
        }
        (Task::QuestionAnswering, _) => question_answering::tensors(config),
        (Task::MultipleChoice, _) => multiple_choice::tensors(config),
        (Task::MaskedLm | Task::CausalLm, _) => language_model_tensors(config, &DecoderTensors::tied(config)),
    }
}

/// `[rows, width]` as one vector a row.
fn rows(logits: &Tensor) -> Result<Logits> {
    Ok(logits.to_vec2()?)
}

/// `[total_tokens, width]` as one row-major vector a sequence.
fn by_sequence(logits: &Tensor, cu_seqlens: &CuSeqlens) -> Result<Logits> {
    let width = logits.dim(1)?;
    let numbers = logits.flatten_all()?.to_vec1::<f32>()?;
    Ok(cu_seqlens.ranges().map(|range| numbers[range.start * width..range.end * width].to_vec()).collect())
}
