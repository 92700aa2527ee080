//! Heads: their tasks, the columns of their answers, and the contracts of these columns.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::TaskName;

/// How the tokens of an entity become one span.
///
/// Source: `AggregationStrategy` of transformers' token classification pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Every tagged token is a span of its own, with its whole tag as the label.
    None,
    /// Adjacent tokens with one label are one span.
    #[default]
    Simple,
    /// A word has the tag of its first token.
    First,
    /// A word has the tag with the highest mean over its tokens.
    Average,
    /// A word has the tag of its token with the highest score.
    Max,
}

/// Which classes a classification returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scores {
    /// The best one.
    #[default]
    Best,
    /// All of them, best first.
    All,
}

/// How a causal language model continues a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Generation {
    /// Maximum number of generated tokens.
    pub max_new_tokens: usize,
    /// 0 takes the most likely token; higher values flatten the distribution to sample from.
    pub temperature: f32,
    /// Samples from this many most likely tokens only; 0 samples from all.
    pub top_k: usize,
    /// Samples from the most likely tokens that together have this probability.
    pub top_p: f32,
    /// The seed of the sampling: the same seed gives the same text.
    pub seed: u64,
}

impl Default for Generation {
    fn default() -> Self {
        Self { max_new_tokens: 32, temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 }
    }
}

/// The task of a head, with its options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum TaskSpec {
    /// The class of a text, by a sequence classifier.
    Classify {
        /// Which classes are returned.
        scores: Scores,
    },
    /// The class of a text among labels that the model was not trained on, by an entailment model.
    ZeroShot {
        /// The candidates.
        labels: Vec<String>,
        /// The hypothesis, with `{}` for a label.
        template: String,
        /// Whether more than one label may be true: each is then scored alone.
        multi_label: bool,
    },
    /// Entities, by a token classifier.
    Ner {
        /// How tokens become spans.
        aggregation: Aggregation,
    },
    /// Answers that are parts of the text, by an extractive question answering model.
    Qa {
        /// Maximum number of answers, best first.
        top_k: usize,
        /// Maximum number of tokens in an answer.
        max_answer_tokens: usize,
        /// Tokens that two windows on a long text share.
        doc_stride: usize,
        /// Whether "no answer" may be the answer.
        null_answer: bool,
        /// Whether an answer consists of whole words; else of whole tokens, for languages without spaces.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        align_to_words: bool,
    },
    /// Tokens for masks in the text, by a masked language model.
    FillMask {
        /// Maximum number of tokens for each mask, best first.
        top_k: usize,
    },
    /// The text's continuation, by a causal language model.
    Generate(Generation),
    /// The best of several continuations, by a multiple choice model.
    Choose,
    /// How well a passage answers a query, by a sequence classifier over both.
    Rerank,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

impl TaskSpec {
    /// The task without its options.
    pub fn task(&self) -> TaskName {
        match self {
            Self::Classify { .. } => TaskName::Classify,
            Self::ZeroShot { .. } => TaskName::ZeroShot,
            Self::Ner { .. } => TaskName::Ner,
            Self::Qa { .. } => TaskName::Qa,
            Self::FillMask { .. } => TaskName::FillMask,
            Self::Generate(_) => TaskName::Generate,
            Self::Choose => TaskName::Choose,
            Self::Rerank => TaskName::Rerank,
        }
    }

    /// The task's name, as on the command line.
    pub fn name(&self) -> &'static str {
        self.task().as_str()
    }

    /// The type of the task's column in a table; `None` for a task that needs more than a row's text.
    pub fn column_type(&self) -> Option<DataType> {
        let text = || field("text", DataType::Utf8);
        Some(match self {
            Self::Classify { scores: Scores::Best } => DataType::Struct(scored("label")),
            Self::Classify { scores: Scores::All } => {
                let mut fields = scored("label").to_vec();
                fields.push(field("scores", list(DataType::Struct(scored("label")))));
                DataType::Struct(fields.into())
            }
            Self::ZeroShot { .. } => list(DataType::Struct(scored("label"))),
            Self::Ner { .. } => {
                let mut fields = scored("label").to_vec();
                fields.extend(range());
                fields.push(text());
                list(DataType::Struct(fields.into()))
            }
            Self::Qa { top_k, .. } => {
                let mut fields = scored("answer").to_vec();
                fields.extend(range());
                let answer = DataType::Struct(fields.into());
                if *top_k > 1 { list(answer) } else { answer }
            }
            Self::FillMask { .. } => list(list(DataType::Struct(scored("token")))),
            Self::Generate(_) => DataType::Utf8,
            Self::Choose => DataType::Struct(Fields::from(vec![
                field("choice", DataType::Utf8),
                field("index", DataType::UInt32),
                field("scores", list(DataType::Float32)),
            ])),
            Self::Rerank => return None,
        })
    }
}

fn field(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, true))
}

fn list(item: DataType) -> DataType {
    DataType::List(field("item", item))
}

fn scored(name: &str) -> Fields {
    Fields::from(vec![field(name, DataType::Utf8), field("score", DataType::Float32)])
}

fn range() -> [FieldRef; 2] {
    [field("start", DataType::UInt64), field("end", DataType::UInt64)]
}

/// Everything that decides the values of an annotation column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadContract {
    /// Where the model was found. Not compared: the hashes decide.
    pub model: String,
    /// BLAKE3 of the weights, backbone and head, hexadecimal.
    pub weights_hash: String,
    /// BLAKE3 of `tokenizer.json`, hexadecimal.
    pub tokenizer_hash: String,
    /// The task with its options.
    pub spec: TaskSpec,
    /// The model's labels, by class.
    pub labels: Vec<String>,
    /// Text that precedes every input.
    pub prefix: String,
    /// The question and the choices, or their columns.
    pub inputs: HeadInputs,
    /// The arithmetic: `f32`, `bf16`, `f16` or `int8`.
    pub dtype: String,
}

/// The inputs of a task besides the row's text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeadInputs {
    /// The question for every row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// The column with each row's question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question_column: Option<String>,
    /// The choices for every row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// The column with each row's choices, a list of texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices_column: Option<String>,
}

/// The contract of an annotation column could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the `{key}` metadata of column {column:?} is not a head's contract of this version", key = HeadContract::METADATA_KEY)]
pub struct HeadContractError {
    /// The column.
    pub column: String,
    /// Why.
    pub source: serde_json::Error,
}

impl HeadContract {
    /// The key in the column's metadata.
    pub const METADATA_KEY: &'static str = "polylance.head";

    /// The column of this head: nullable, with the contract in its metadata. `None` for a task without a column.
    ///
    /// # Panics
    /// Never: every field has a JSON form.
    pub fn field(&self, name: &str) -> Option<Field> {
        let json = serde_json::to_string(self).expect("a contract is plain data");
        let field = Field::new(name, self.spec.column_type()?, true);
        Some(field.with_metadata(HashMap::from([(Self::METADATA_KEY.to_owned(), json)])))
    }

    /// The contract of a column; `None` when it is not an annotation.
    ///
    /// # Errors
    /// When the metadata is not a contract.
    pub fn of(field: &Field) -> Result<Option<Self>, HeadContractError> {
        let Some(json) = field.metadata().get(Self::METADATA_KEY) else { return Ok(None) };
        serde_json::from_str(json)
            .map(Some)
            .map_err(|source| HeadContractError { column: field.name().clone(), source })
    }

    /// Whether values of both contracts may be in one column.
    pub fn same(&self, other: &Self) -> bool {
        let comparable = |contract: &Self| Self { model: String::new(), ..contract.clone() };
        comparable(self) == comparable(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract() -> HeadContract {
        HeadContract {
            model: "./topic".into(),
            weights_hash: "7c1e".into(),
            tokenizer_hash: "03fa".into(),
            spec: TaskSpec::Ner { aggregation: Aggregation::First },
            labels: vec!["O".into(), "B-PER".into()],
            prefix: String::new(),
            inputs: HeadInputs::default(),
            dtype: "f32".into(),
        }
    }

    #[test]
    fn column_metadata_holds_the_contract() {
        let field = contract().field("people").unwrap();
        assert_eq!(HeadContract::of(&field).unwrap(), Some(contract()));
        assert_eq!(HeadContract::of(&Field::new("people", DataType::Utf8, true)).unwrap(), None);
        let broken = field.with_metadata(HashMap::from([(HeadContract::METADATA_KEY.to_owned(), "{}".to_owned())]));
        let message = HeadContract::of(&broken).unwrap_err().to_string();
        assert!(message.contains("\"people\""), "{message}");
    }

    #[test]
    fn same_ignores_the_path_and_compares_the_options() {
        assert!(contract().same(&HeadContract { model: "./copy".into(), ..contract() }));
        let spec = TaskSpec::Ner { aggregation: Aggregation::Max };
        assert!(!contract().same(&HeadContract { spec, ..contract() }));
    }

    #[test]
    fn every_task_except_reranking_has_a_column() {
        let qa =
            TaskSpec::Qa { top_k: 1, max_answer_tokens: 15, doc_stride: 128, null_answer: false, align_to_words: true };
        assert!(matches!(qa.column_type(), Some(DataType::Struct(_))));
        assert_eq!(TaskSpec::Generate(Generation::default()).column_type(), Some(DataType::Utf8));
        assert_eq!(TaskSpec::Rerank.column_type(), None);
    }
}
