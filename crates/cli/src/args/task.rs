//! The flags of tasks.

use polylance_config::{TaskError, TaskOptions};
use polylance_engine::UsageError;
use polylance_schema::{Aggregation, Scores, TaskName, TaskSpec};

use super::word;

/// Options of tasks, on the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options of tasks")]
pub(crate) struct TaskArgs {
    /// ner: how tokens become spans [default: simple]
    #[arg(long, value_name = "A", value_parser = word::<Aggregation>())]
    aggregation: Option<Aggregation>,
    /// classify: tell every class with its score, not the best alone
    #[arg(long)]
    all_scores: bool,
    /// zero-shot: the candidates
    #[arg(long, value_name = "LABEL,…", value_delimiter = ',')]
    labels: Option<Vec<String>>,
    /// zero-shot: the hypothesis, with {} for a label [default: "This example is {}."]
    #[arg(long, value_name = "TEXT")]
    template: Option<String>,
    /// zero-shot: several labels may be true, each is scored alone
    #[arg(long)]
    multi_label: bool,
    /// qa: answers to tell [default: 1]; fill-mask: tokens to tell [default: 5]; generate: ids to draw from
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// qa: tokens of an answer at most [default: 15]
    #[arg(long, value_name = "N")]
    max_answer_tokens: Option<usize>,
    /// qa: tokens that two windows on a long text share [default: 128]
    #[arg(long, value_name = "N")]
    doc_stride: Option<usize>,
    /// qa: "no answer" may be the answer
    #[arg(long)]
    null_answer: bool,
    /// qa: whether an answer is of whole words; false suits languages that write no spaces [default: true]
    #[arg(long, value_name = "BOOL")]
    align_to_words: Option<bool>,
    /// generate: ids to make at most [default: 32]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// generate: 0 takes the most likely id, higher numbers draw more freely [default: 0]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// generate: draw from the most likely ids that together have this probability [default: 1]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// generate: where the draws begin [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl TaskArgs {
    /// The flags as a pipeline file has them.
    pub(crate) fn options(&self) -> TaskOptions {
        let given = self;
        TaskOptions {
            scores: given.all_scores.then_some(Scores::All),
            aggregation: given.aggregation,
            labels: given.labels.clone(),
            template: given.template.clone(),
            multi_label: given.multi_label.then_some(true),
            top_k: given.top_k,
            max_answer_tokens: given.max_answer_tokens,
            doc_stride: given.doc_stride,
            null_answer: given.null_answer.then_some(true),
            align_to_words: given.align_to_words,
            max_new_tokens: given.max_new_tokens,
            temperature: given.temperature,
            top_p: given.top_p,
            seed: given.seed,
        }
    }

    /// A task with these options.
    pub(crate) fn spec(&self, task: TaskName) -> Result<TaskSpec, UsageError> {
        self.options().spec(task).map_err(usage)
    }
}

/// The error with keys as flags.
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
