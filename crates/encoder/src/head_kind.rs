//! The kinds of heads, and the classes of transformers that have them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::ModelKind;

/// The kinds of heads, by their output. The tasks of users are in `polylance_schema::TaskName`; one kind serves several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadKind {
    /// One logit per label, for the whole sequence.
    SequenceClassification,
    /// One logit per label, for each token.
    TokenClassification,
    /// Where an answer starts and ends: two logits per token.
    QuestionAnswering,
    /// One logit per token of the vocabulary, for each token.
    MaskedLm,
    /// The same, where a token attends only to those before it.
    CausalLm,
    /// One logit per sequence, to be compared among the sequences of one question.
    MultipleChoice,
}

impl HeadKind {
    /// Every kind.
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
    /// use polylance_encoder::{ModelKind, HeadKind};
    ///
    /// assert_eq!(HeadKind::MaskedLm.architecture(ModelKind::XlmRobertaXl), "XLMRobertaXLForMaskedLM");
    /// assert_eq!(HeadKind::CausalLm.architecture(ModelKind::Bert), "BertLMHeadModel");
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

    /// The kind of head of a class of transformers; `None` for a class without a head, or with an unsupported one.
    pub(crate) fn of(architecture: &str, kind: ModelKind) -> Option<Self> {
        Self::ALL.into_iter().find(|head| head.architecture(kind) == architecture)
    }

    /// Whether a head of this kind can be loaded as one of `requested`: both language models have the same tensors.
    pub(crate) fn serves(self, requested: Self) -> bool {
        let language = |head| matches!(head, Self::MaskedLm | Self::CausalLm);
        self == requested || (language(self) && language(requested))
    }
}

impl fmt::Display for HeadKind {
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
    fn architectures_round_trip() {
        for kind in [ModelKind::XlmRobertaXl, ModelKind::XlmRoberta, ModelKind::Bert] {
            for head in HeadKind::ALL {
                assert_eq!(HeadKind::of(&head.architecture(kind), kind), Some(head));
            }
        }
        assert_eq!(HeadKind::of("BertModel", ModelKind::Bert), None);
    }
}
