//! What heads say of texts.

use std::{fmt, ops::Range, sync::Arc};

use futures::future::BoxFuture;
use polylance_schema::TaskSpec;

use crate::Result;

/// What a head is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AnnotateInput {
    /// The text; the context of a question, the passage of a query.
    pub text: String,
    /// The question, or the query, where the task has one.
    pub question: Option<String>,
    /// The choices, where the task has them.
    pub choices: Vec<String>,
}

/// A class and how likely it is.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelScore {
    /// The class.
    pub label: String,
    /// Its probability, or the value of a regression.
    pub score: f32,
}

/// An entity.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The class.
    pub label: String,
    /// How likely it is.
    pub score: f32,
    /// Its place in the text, in Unicode scalar values.
    pub chars: Range<u64>,
    /// That slice of the text.
    pub text: String,
    /// Whether its first tag says that the entity began before (`I-`, `E-`, `L-`): at the beginning of a chunk it then
    /// continues the last entity of the chunk before.
    pub continues: bool,
}

/// An answer that stands in the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The slice of the text; empty for "no answer".
    pub text: String,
    /// How likely it is.
    pub score: f32,
    /// Its place in the text, in Unicode scalar values; empty for "no answer".
    pub chars: Range<u64>,
}

/// A token and how likely it is.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenScore {
    /// The token as text.
    pub token: String,
    /// Its probability.
    pub score: f32,
}

/// What a head says of one input.
#[derive(Debug, Clone, PartialEq)]
pub enum Annotation {
    /// Classes, best first: one or all, as the task says.
    Labels(Vec<LabelScore>),
    /// Entities, in the order of the text.
    Spans(Vec<Span>),
    /// Answers, best first.
    Answers(Vec<Answer>),
    /// Tokens for each mask, best first.
    Masks(Vec<Vec<TokenScore>>),
    /// The text that was made.
    Text(String),
    /// The scores of the choices, in their order.
    Choices(Vec<f32>),
    /// How well the text answers the query.
    Relevance(f32),
}

/// An annotation, or why the input has none.
pub type Annotated = std::result::Result<Annotation, String>;

/// A model with a head, its tokenizer and its devices.
///
/// Laws: as those of [`crate::Backend`]; an input that cannot be annotated says why and does not fail the others.
pub trait Annotator: fmt::Debug + Send + Sync {
    /// What the head is asked.
    fn spec(&self) -> &TaskSpec;

    /// The annotation of each input.
    fn annotate(&self, inputs: Vec<AnnotateInput>) -> BoxFuture<'static, Result<Vec<Annotated>>>;
}

/// The annotator as a session extension, so that a plan finds it where it runs.
#[derive(Debug, Clone)]
pub struct AnnotatorHandle(pub Arc<dyn Annotator>);
