//! Tasks: from a text to a model's inputs, and from logits to an annotation.
//!
//! Each file is one task, in two pure steps: `encode` makes the encodings of an input, `annotation` decodes the logits
//! of those encodings. The numerics are those of the pipelines of transformers 5.23 (question answering: 4.57).

mod choices;
mod classes;
mod inputs;
mod masks;
mod prompt;
mod question;
mod schemes;
mod spans;
mod text;
mod zero_shot;

use std::sync::Arc;

use polylance_backend::{AnnotateInput, Annotation};
use polylance_encoder::{Activation, HeadKind, ProblemType};
use polylance_schema::TaskSpec;
use tokenizers::Encoding;

use self::inputs::{TextEncoder, model_input};
pub(crate) use self::{
    inputs::{InputLimit, TaskInput, TaskOutput},
    masks::top_tokens,
    prompt::fitted_prefix,
};
use crate::tokenize::Tokenizer;

/// How the logits of a head are interpreted.
#[derive(Debug, Default)]
pub(crate) struct LogitInfo {
    pub(crate) labels: Vec<String>,
    pub(crate) problem_type: Option<ProblemType>,
    /// Of a cross-encoder.
    pub(crate) activation: Activation,
}

/// The text side of a task: it encodes inputs and decodes logits.
#[derive(Debug)]
pub(crate) struct TaskRunner {
    pub(crate) spec: TaskSpec,
    logit_info: LogitInfo,
    /// Put before the text of a single input.
    prefix: String,
    encoder: TextEncoder,
    /// The mask token.
    mask: Option<u32>,
}

/// The kind of head that a task needs.
pub(crate) fn head_kind(spec: &TaskSpec) -> HeadKind {
    match spec {
        TaskSpec::Classify { .. } | TaskSpec::ZeroShot { .. } | TaskSpec::Rerank => HeadKind::SequenceClassification,
        TaskSpec::Ner { .. } => HeadKind::TokenClassification,
        TaskSpec::Qa { .. } => HeadKind::QuestionAnswering,
        TaskSpec::FillMask { .. } => HeadKind::MaskedLm,
        TaskSpec::Generate(_) => HeadKind::CausalLm,
        TaskSpec::Choose => HeadKind::MultipleChoice,
    }
}

impl TaskRunner {
    /// # Errors
    /// When the tokenizer does not fit the task.
    pub(crate) fn new(
        spec: TaskSpec,
        logit_info: LogitInfo,
        prefix: String,
        tokenizer: Arc<Tokenizer>,
        limit: InputLimit,
    ) -> Result<Self, String> {
        let mask = ["<mask>", "[MASK]"].iter().find_map(|mask| tokenizer.token_to_id(mask));
        if matches!(spec, TaskSpec::FillMask { .. }) && mask.is_none() {
            return Err("the tokenizer has no <mask> and no [MASK]".to_owned());
        }
        let encoder = TextEncoder::new(tokenizer, &spec, limit);
        Ok(Self { spec, logit_info, prefix, encoder, mask })
    }

    /// The encodings of an input; each becomes one sequence.
    ///
    /// # Errors
    /// The reason why the input has none.
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

    /// The model's input for an encoding.
    pub(crate) fn model_input(&self, encoding: &Encoding) -> TaskInput {
        model_input(encoding, self.mask.filter(|_| matches!(self.spec, TaskSpec::FillMask { .. })))
    }

    /// The annotation that the outputs stand for; `encodings` are those of [`TaskRunner::encode`], one for each output.
    ///
    /// # Errors
    /// The reason why there is no annotation.
    pub(crate) fn annotation(
        &self,
        input: &AnnotateInput,
        encodings: &[Encoding],
        outputs: &[TaskOutput],
    ) -> Result<Annotation, String> {
        let LogitInfo { labels: classes, problem_type, activation } = &self.logit_info;
        let logits = || outputs.iter().map(TaskOutput::logits).collect::<Result<Vec<_>, _>>();
        let one = || outputs.first().ok_or_else(|| "the model returned no output".to_owned());
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
                let options = question::AnswerOptions {
                    max_answers: *top_k,
                    max_tokens: *max_answer_tokens,
                    null_answer: *null_answer,
                    align_to_words: *align_to_words,
                };
                question::annotation(&input.text, encodings, &logits()?, options)
            }
            TaskSpec::FillMask { .. } => masks::annotation(&self.encoder.tokenizer, one()?),
            TaskSpec::Generate(_) => text::annotation(&self.encoder.tokenizer, one()?),
            TaskSpec::Choose => choices::annotation(&logits()?),
            TaskSpec::Rerank => choices::relevance(one()?.logits()?, *activation),
        }
    }
}
