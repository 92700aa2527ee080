//! Tasks of heads in configuration: a name, and the options that belong to it.

use polylance_schema::{Aggregation, Generation, Scores, TaskName, TaskSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The options of all tasks; each belongs to some of them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TaskOptions {
    /// classify: `best` returns the best class, `all` returns every class with its score.
    pub scores: Option<Scores>,
    /// ner: how tokens become spans.
    pub aggregation: Option<Aggregation>,
    /// zero-shot: the candidates.
    pub labels: Option<Vec<String>>,
    /// zero-shot: the hypothesis, with `{}` for a label.
    pub template: Option<String>,
    /// zero-shot: whether several labels may be true, each scored alone.
    pub multi_label: Option<bool>,
    /// qa: maximum number of answers; fill-mask: maximum number of tokens for each mask; generate: sample from this many
    /// most likely tokens only.
    pub top_k: Option<usize>,
    /// qa: maximum number of tokens in an answer.
    #[schemars(range(min = 1))]
    pub max_answer_tokens: Option<usize>,
    /// qa: tokens that two windows on a long text share.
    pub doc_stride: Option<usize>,
    /// qa: whether "no answer" may be the answer.
    pub null_answer: Option<bool>,
    /// qa: whether an answer consists of whole words instead of whole tokens.
    pub align_to_words: Option<bool>,
    /// generate: maximum number of generated tokens.
    #[schemars(range(min = 1))]
    pub max_new_tokens: Option<usize>,
    /// generate: 0 takes the most likely token; higher values sample more freely.
    pub temperature: Option<f32>,
    /// generate: sample from the most likely tokens that together have this probability.
    pub top_p: Option<f32>,
    /// generate: the seed of the sampling.
    pub seed: Option<u64>,
}

/// The options do not fit the task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The option belongs to other tasks.
    #[error("`{key}` does not belong to the task {task}")]
    Stray {
        /// The option.
        key: &'static str,
        /// The task.
        task: String,
    },
    /// The task requires the option.
    #[error("the task {task} needs `{key}`")]
    Missing {
        /// The option.
        key: &'static str,
        /// The task.
        task: String,
    },
    /// The value is not allowed.
    #[error("`{key}` must be {expected}, found {found}")]
    Wrong {
        /// The option.
        key: &'static str,
        /// The allowed values.
        expected: &'static str,
        /// The value.
        found: String,
    },
}

impl TaskOptions {
    /// The task with these options, and with defaults for the others.
    ///
    /// # Errors
    /// [`TaskError`] for an option that is missing, belongs to another task, or has a value that is not allowed.
    ///
    /// ```
    /// use polylance_config::TaskOptions;
    /// use polylance_schema::TaskName;
    ///
    /// let options = TaskOptions { labels: Some(vec!["sports".into(), "law".into()]), ..TaskOptions::default() };
    /// assert_eq!(options.spec(TaskName::ZeroShot)?.name(), "zero-shot");
    /// assert_eq!(options.spec(TaskName::Ner).unwrap_err().to_string(), "`labels` does not belong to the task ner");
    /// # Ok::<(), polylance_config::TaskError>(())
    /// ```
    pub fn spec(&self, task: TaskName) -> Result<TaskSpec, TaskError> {
        self.refuse_stray(task)?;
        Ok(match task {
            TaskName::Classify => TaskSpec::Classify { scores: self.scores.unwrap_or_default() },
            TaskName::ZeroShot => self.zero_shot()?,
            TaskName::Ner => TaskSpec::Ner { aggregation: self.aggregation.unwrap_or_default() },
            TaskName::Qa => TaskSpec::Qa {
                top_k: positive("top_k", self.top_k.unwrap_or(1))?,
                max_answer_tokens: positive("max_answer_tokens", self.max_answer_tokens.unwrap_or(15))?,
                doc_stride: self.doc_stride.unwrap_or(128),
                null_answer: self.null_answer.unwrap_or(false),
                align_to_words: self.align_to_words.unwrap_or(true),
            },
            TaskName::FillMask => TaskSpec::FillMask { top_k: positive("top_k", self.top_k.unwrap_or(5))? },
            TaskName::Generate => TaskSpec::Generate(self.generation()?),
            TaskName::Choose => TaskSpec::Choose,
            TaskName::Rerank => TaskSpec::Rerank,
        })
    }

    fn zero_shot(&self) -> Result<TaskSpec, TaskError> {
        let task = TaskName::ZeroShot.to_string();
        let labels = self.labels.clone().ok_or(TaskError::Missing { key: "labels", task })?;
        if labels.is_empty() || labels.iter().any(|label| label.trim().is_empty()) {
            let found = format!("{labels:?}");
            return Err(TaskError::Wrong { key: "labels", expected: "texts that are not empty", found });
        }
        // The default of transformers.
        let template = self.template.clone().unwrap_or_else(|| "This example is {}.".to_owned());
        if !template.contains("{}") {
            return Err(TaskError::Wrong {
                key: "template",
                expected: "a text with `{}` in place of a label",
                found: format!("{template:?}"),
            });
        }
        Ok(TaskSpec::ZeroShot { labels, template, multi_label: self.multi_label.unwrap_or(false) })
    }

    fn generation(&self) -> Result<Generation, TaskError> {
        let default = Generation::default();
        let generation = Generation {
            max_new_tokens: positive("max_new_tokens", self.max_new_tokens.unwrap_or(default.max_new_tokens))?,
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            seed: self.seed.unwrap_or(default.seed),
        };
        let wrong = |key, expected, found: f32| Err(TaskError::Wrong { key, expected, found: found.to_string() });
        if !(generation.temperature.is_finite() && generation.temperature >= 0.0) {
            return wrong("temperature", "0 or more", generation.temperature);
        }
        if !(generation.top_p > 0.0 && generation.top_p <= 1.0) {
            return wrong("top_p", "above 0 and at most 1", generation.top_p);
        }
        Ok(generation)
    }

    fn refuse_stray(&self, task: TaskName) -> Result<(), TaskError> {
        use TaskName::{Classify, FillMask, Generate, Ner, Qa, ZeroShot};
        let options: [(&'static str, bool, &[TaskName]); 14] = [
            ("scores", self.scores.is_some(), &[Classify]),
            ("aggregation", self.aggregation.is_some(), &[Ner]),
            ("labels", self.labels.is_some(), &[ZeroShot]),
            ("template", self.template.is_some(), &[ZeroShot]),
            ("multi_label", self.multi_label.is_some(), &[ZeroShot]),
            ("top_k", self.top_k.is_some(), &[Qa, FillMask, Generate]),
            ("max_answer_tokens", self.max_answer_tokens.is_some(), &[Qa]),
            ("doc_stride", self.doc_stride.is_some(), &[Qa]),
            ("null_answer", self.null_answer.is_some(), &[Qa]),
            ("align_to_words", self.align_to_words.is_some(), &[Qa]),
            ("max_new_tokens", self.max_new_tokens.is_some(), &[Generate]),
            ("temperature", self.temperature.is_some(), &[Generate]),
            ("top_p", self.top_p.is_some(), &[Generate]),
            ("seed", self.seed.is_some(), &[Generate]),
        ];
        match options.into_iter().find(|(_, set, tasks)| *set && !tasks.contains(&task)) {
            Some((key, ..)) => Err(TaskError::Stray { key, task: task.to_string() }),
            None => Ok(()),
        }
    }
}

fn positive(key: &'static str, number: usize) -> Result<usize, TaskError> {
    if number > 0 { Ok(number) } else { Err(TaskError::Wrong { key, expected: "1 or more", found: "0".to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_option() {
        let none = TaskOptions::default;
        let cases = [
            (TaskName::ZeroShot, none(), "the task zero-shot needs `labels`"),
            (
                TaskName::ZeroShot,
                TaskOptions { labels: Some(vec![]), ..none() },
                "`labels` must be texts that are not empty, found []",
            ),
            (
                TaskName::ZeroShot,
                TaskOptions { labels: Some(vec!["a".into()]), template: Some("It is.".into()), ..none() },
                "`template` must be a text with `{}` in place of a label, found \"It is.\"",
            ),
            (TaskName::Qa, TaskOptions { top_k: Some(0), ..none() }, "`top_k` must be 1 or more, found 0"),
            (
                TaskName::Generate,
                TaskOptions { top_p: Some(0.0), ..none() },
                "`top_p` must be above 0 and at most 1, found 0",
            ),
            (TaskName::Choose, TaskOptions { seed: Some(1), ..none() }, "`seed` does not belong to the task choose"),
        ];
        for (task, options, expected) in cases {
            assert_eq!(options.spec(task).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn every_task_without_required_options_has_defaults() {
        use TaskName::{Choose, Classify, FillMask, Generate, Ner, Qa, Rerank};
        for task in [Classify, Ner, Qa, FillMask, Generate, Choose, Rerank] {
            assert_eq!(TaskOptions::default().spec(task).unwrap().name(), task.to_string());
        }
    }
}
