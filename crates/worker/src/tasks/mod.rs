//! Tasks: from a text to a model's inputs, and from logits to an annotation.
//!
//! Each file is one task, in two pure steps: `encode` makes encodings of an input, `annotation` reads the logits of
//! those encodings. The numerics are those of the pipelines of transformers 5.23 (question answering: 4.57).

mod choices;
mod classes;
mod inputs;
mod masks;
mod question;
mod schemes;
mod spans;
mod text;
mod zero_shot;

use std::sync::Arc;

use polylance_backend::{AnnotateInput, Annotation};
use polylance_encoder::{Activation, ProblemType, Task, TruncationSide};
use polylance_schema::TaskSpec;
use tokenizers::Encoding;

use self::inputs::TextEncoder;
pub(crate) use self::{
    inputs::{TaskInput, TaskOutput, model_input},
    masks::top as masks_top,
};
use crate::normalizer::Tokenizer;

/// Tokens that two windows on a text that is too long share, where the task does not say it.
const STRIDE: usize = 128;
/// Ids of a window on a question and its context at most: transformers' own limit.
const QUESTION_WINDOW: usize = 384;

/// What a model says of its logits.
#[derive(Debug, Default)]
pub(crate) struct Meaning {
    pub(crate) labels: Vec<String>,
    pub(crate) problem_type: Option<ProblemType>,
    /// A cross-encoder's.
    pub(crate) activation: Activation,
}

/// How a text that is too long is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// Ids in one input at most.
    pub(crate) max_tokens: usize,
    pub(crate) side: TruncationSide,
}

/// A task with what the model and the tokenizer say of it.
#[derive(Debug)]
pub(crate) struct TaskRunner {
    pub(crate) spec: TaskSpec,
    meaning: Meaning,
    /// Put before the text of a single input.
    pub(crate) prefix: String,
    encoder: TextEncoder,
    mask: Option<u32>,
}

/// The head that a task asks.
pub(crate) fn head(spec: &TaskSpec) -> Task {
    match spec {
        TaskSpec::Classify { .. } | TaskSpec::ZeroShot { .. } | TaskSpec::Rerank => Task::SequenceClassification,
        TaskSpec::Ner { .. } => Task::TokenClassification,
        TaskSpec::Qa { .. } => Task::QuestionAnswering,
        TaskSpec::FillMask { .. } => Task::MaskedLm,
        TaskSpec::Generate(_) => Task::CausalLm,
        TaskSpec::Choose => Task::MultipleChoice,
    }
}

impl TaskRunner {
    /// # Errors
    /// In words, when the tokenizer does not fit the task.
    pub(crate) fn new(
        spec: TaskSpec,
        meaning: Meaning,
        prefix: String,
        tokenizer: Arc<Tokenizer>,
        limit: Limit,
    ) -> Result<Self, String> {
        let mask = ["<mask>", "[MASK]"].iter().find_map(|mask| tokenizer.token_to_id(mask));
        if matches!(spec, TaskSpec::FillMask { .. }) && mask.is_none() {
            return Err("the tokenizer has no <mask> and no [MASK]".to_owned());
        }
        let encoder = TextEncoder::new(tokenizer, &spec, limit);
        Ok(Self { spec, meaning, prefix, encoder, mask })
    }

    /// The encodings of an input; each becomes one sequence.
    ///
    /// # Errors
    /// Why the input has none.
    pub(crate) fn encode(&self, input: &AnnotateInput) -> Result<Vec<Encoding>, String> {
        let encoder = &self.encoder;
        match &self.spec {
            TaskSpec::Classify { .. } => Ok(vec![encoder.single(&self.prefix, &input.text)?]),
            TaskSpec::ZeroShot { labels, template, .. } => zero_shot::encode(encoder, &input.text, labels, template),
            TaskSpec::Ner { .. } => Ok(inputs::windows(encoder.single(&self.prefix, &input.text)?)),
            TaskSpec::Qa { .. } => question::encode(encoder, input),
            TaskSpec::FillMask { .. } => masks::encode(encoder, &input.text, self.mask),
            TaskSpec::Generate(_) => Ok(vec![encoder.single("", &input.text)?]),
            TaskSpec::Choose => choices::encode(encoder, input),
            TaskSpec::Rerank => choices::encode_passage(encoder, input),
        }
    }

    /// The input of the model for an encoding.
    pub(crate) fn model_input(&self, encoding: &Encoding) -> TaskInput {
        model_input(encoding, self.mask.filter(|_| matches!(self.spec, TaskSpec::FillMask { .. })))
    }

    /// What the outputs say; `encodings` are those of [`TaskRunner::encode`], one for each output.
    ///
    /// # Errors
    /// Why there is no annotation.
    pub(crate) fn annotation(
        &self,
        input: &AnnotateInput,
        encodings: &[Encoding],
        outputs: &[TaskOutput],
    ) -> Result<Annotation, String> {
        let Meaning { labels: classes, problem_type, activation } = &self.meaning;
        let logits = || outputs.iter().map(TaskOutput::logits).collect::<Result<Vec<_>, _>>();
        let one = || outputs.first().ok_or_else(|| "the model gave no output".to_owned());
        match &self.spec {
            TaskSpec::Classify { scores } => classes::annotation(one()?.logits()?, classes, *problem_type, *scores),
            TaskSpec::ZeroShot { labels, multi_label, .. } => {
                zero_shot::annotation(&logits()?, classes, labels, *multi_label)
            }
            TaskSpec::Ner { aggregation } => {
                let tokens = spans::Tokens::new(&self.encoder.tokenizer, &self.prefix, &input.text);
                let tags = schemes::Tags::new(classes);
                spans::annotation(&tokens, encodings, &logits()?, &tags, *aggregation)
            }
            TaskSpec::Qa { top_k, max_answer_tokens, null_answer, align_to_words, .. } => {
                let wanted = question::Wanted {
                    answers: *top_k,
                    tokens: *max_answer_tokens,
                    null: *null_answer,
                    words: *align_to_words,
                };
                question::annotation(&input.text, encodings, &logits()?, &wanted)
            }
            TaskSpec::FillMask { .. } => masks::annotation(&self.encoder.tokenizer, one()?),
            TaskSpec::Generate(_) => text::annotation(&self.encoder.tokenizer, one()?),
            TaskSpec::Choose => choices::annotation(&logits()?),
            TaskSpec::Rerank => choices::relevance(one()?.logits()?, *activation),
        }
    }
}
