//! Heads: their inputs and their answers for texts.

use std::{fmt, ops::Range, sync::Arc};

use futures::future::BoxFuture;
use polylance_schema::TaskSpec;

use crate::Result;

/// The input of a head.
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
    /// Its range in the text, in Unicode scalar values.
    pub chars: Range<u64>,
    /// That slice of the text.
    pub text: String,
    /// Whether its first tag means that the entity began earlier (`I-`, `E-`, `L-`): at the beginning of a chunk it then
    /// continues the last entity of the previous chunk.
    pub continues: bool,
}

/// An answer that is a part of the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The slice of the text; empty for "no answer".
    pub text: String,
    /// How likely it is.
    pub score: f32,
    /// Its range in the text, in Unicode scalar values; empty for "no answer".
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

/// A head's answer for one input.
#[derive(Debug, Clone, PartialEq)]
pub enum Annotation {
    /// Classes, best first: one or all, depending on the task.
    Labels(Vec<LabelScore>),
    /// Entities, in the order of the text.
    Spans(Vec<Span>),
    /// Answers, best first.
    Answers(Vec<Answer>),
    /// Tokens for each mask, best first.
    Masks(Vec<Vec<TokenScore>>),
    /// The generated text.
    Text(String),
    /// The scores of the choices, in their order.
    Choices(Vec<f32>),
    /// How well the text answers the query.
    Relevance(f32),
}

/// An annotation, or the reason why there is none.
pub type Annotated = std::result::Result<Annotation, String>;

/// A model with a head, its tokenizer and its devices.
///
/// Laws: those of [`crate::Backend`]; an input that cannot be annotated yields a reason and does not fail the others.
pub trait Annotator: fmt::Debug + Send + Sync {
    /// The task of the head.
    fn spec(&self) -> &TaskSpec;

    /// The annotation of each input.
    fn annotate(&self, inputs: Vec<AnnotateInput>) -> BoxFuture<'static, Result<Vec<Annotated>>>;
}

/// The annotator as a session extension: a plan finds it where it runs.
#[derive(Debug, Clone)]
pub struct AnnotatorHandle(pub Arc<dyn Annotator>);
