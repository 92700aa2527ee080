//! The options of tasks.

use polylance_config::{TaskError, TaskOptions};
use polylance_engine::UsageError;
use polylance_schema::{Aggregation, Scores, TaskName, TaskSpec};

use super::word;

/// The options of tasks as flags.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Task options")]
pub(crate) struct TaskArgs {
    /// ner: how tokens become spans [default: simple]
    #[arg(long, value_name = "A", value_parser = word::<Aggregation>())]
    aggregation: Option<Aggregation>,
    /// classify: return all classes with their scores, not only the best one
    #[arg(long)]
    all_scores: bool,
    /// zero-shot: candidate labels
    #[arg(long, value_name = "LABEL,…", value_delimiter = ',')]
    labels: Option<Vec<String>>,
    /// zero-shot: hypothesis, with {} in place of the label [default: "This example is {}."]
    #[arg(long, value_name = "TEXT")]
    template: Option<String>,
    /// zero-shot: score each label independently; several may be true
    #[arg(long)]
    multi_label: bool,
    /// qa: number of answers [default: 1]; fill-mask: tokens per mask [default: 5]; generate: most likely tokens to
    /// sample from [default: all]
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// qa: maximum tokens of an answer [default: 15]
    #[arg(long, value_name = "N")]
    max_answer_tokens: Option<usize>,
    /// qa: tokens by which two windows over a long text overlap [default: 128]
    #[arg(long, value_name = "N")]
    doc_stride: Option<usize>,
    /// qa: allow "no answer" as the result
    #[arg(long)]
    null_answer: bool,
    /// qa: whether answers consist of whole words; false suits languages written without spaces [default: true]
    #[arg(long, value_name = "BOOL")]
    align_to_words: Option<bool>,
    /// generate: maximum number of new tokens [default: 32]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// generate: sampling temperature; 0 always takes the most likely token [default: 0]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// generate: sample from the most likely tokens whose probabilities add up to this [default: 1]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// generate: seed of the sampling [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl TaskArgs {
    /// The options as in a pipeline file.
    pub(crate) fn options(&self) -> TaskOptions {
        TaskOptions {
            scores: self.all_scores.then_some(Scores::All),
            aggregation: self.aggregation,
            labels: self.labels.clone(),
            template: self.template.clone(),
            multi_label: self.multi_label.then_some(true),
            top_k: self.top_k,
            max_answer_tokens: self.max_answer_tokens,
            doc_stride: self.doc_stride,
            null_answer: self.null_answer.then_some(true),
            align_to_words: self.align_to_words,
            max_new_tokens: self.max_new_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            seed: self.seed,
        }
    }

    /// The task with these options.
    pub(crate) fn spec(&self, task: TaskName) -> Result<TaskSpec, UsageError> {
        self.options().spec(task).map_err(usage)
    }
}

/// The error with flags in place of keys.
pub(crate) fn usage(error: TaskError) -> UsageError {
    let flag = |key: &str| match key {
        "scores" => "--all-scores".to_owned(),
        key => format!("--{}", key.replace('_', "-")),
    };
    UsageError::new(match error {
        TaskError::Stray { key, task } => format!("{} does not belong to the task {task}", flag(key)),
        TaskError::Missing { key, task } => format!("the task {task} needs {}", flag(key)),
        TaskError::Wrong { key, expected, found } => format!("{} must be {expected}, found {found}", flag(key)),
    })
}
