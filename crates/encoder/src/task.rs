//! The tasks a model's head is made for, and the classes of transformers that carry each.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::ModelKind;

/// What a head computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// One logit a label, for the whole sequence.
    SequenceClassification,
    /// One logit a label, for each token.
    TokenClassification,
    /// Where an answer starts and ends: two logits a token.
    QuestionAnswering,
    /// One logit a word of the vocabulary, for each token.
    MaskedLm,
    /// The same, where a token sees only what is before it.
    CausalLm,
    /// One logit a sequence, to be compared among the sequences of one question.
    MultipleChoice,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 6] = [
        Self::SequenceClassification,
        Self::TokenClassification,
        Self::QuestionAnswering,
        Self::MaskedLm,
        Self::CausalLm,
        Self::MultipleChoice,
    ];

    /// The class of transformers 5.23 that has this head, as `architectures` in `config.json` names it.
    ///
    /// ```
    /// use polylance_encoder::{ModelKind, Task};
    ///
    /// assert_eq!(Task::MaskedLm.architecture(ModelKind::XlmRobertaXl), "XLMRobertaXLForMaskedLM");
    /// assert_eq!(Task::CausalLm.architecture(ModelKind::Bert), "BertLMHeadModel");
    /// ```
    pub fn architecture(self, kind: ModelKind) -> String {
        let prefix = match kind {
            ModelKind::XlmRobertaXl => "XLMRobertaXL",
            ModelKind::XlmRoberta => "XLMRoberta",
            ModelKind::Bert => "Bert",
        };
        let suffix = match self {
            Self::SequenceClassification => "ForSequenceClassification",
            Self::TokenClassification => "ForTokenClassification",
            Self::QuestionAnswering => "ForQuestionAnswering",
            Self::MaskedLm => "ForMaskedLM",
            Self::CausalLm if kind == ModelKind::Bert => "LMHeadModel",
            Self::CausalLm => "ForCausalLM",
            Self::MultipleChoice => "ForMultipleChoice",
        };
        format!("{prefix}{suffix}")
    }

    /// The task of a class of transformers; `None` for a class without a head, or with one that is not computed here.
    pub(crate) fn of(architecture: &str, kind: ModelKind) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.architecture(kind) == architecture)
    }

    /// Whether a head made for `self` may be read as one for `asked`: both language models have the same tensors.
    pub(crate) fn serves(self, asked: Self) -> bool {
        let language = |task| matches!(task, Self::MaskedLm | Self::CausalLm);
        self == asked || (language(self) && language(asked))
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SequenceClassification => "sequence classification",
            Self::TokenClassification => "token classification",
            Self::QuestionAnswering => "question answering",
            Self::MaskedLm => "masked language modeling",
            Self::CausalLm => "causal language modeling",
            Self::MultipleChoice => "multiple choice",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_recognized() {
        for kind in [ModelKind::XlmRobertaXl, ModelKind::XlmRoberta, ModelKind::Bert] {
            for task in Task::ALL {
                assert_eq!(Task::of(&task.architecture(kind), kind), Some(task));
            }
        }
        assert_eq!(Task::of("BertModel", ModelKind::Bert), None);
    }
}
