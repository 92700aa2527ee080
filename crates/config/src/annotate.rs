//! `[[annotate]]`: a column with the answers of a head.

use polylance_schema::{HeadInputs, TaskName, TaskSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{TaskError, TaskOptions};

/// A head, and the column for its answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Annotate {
    /// The column.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The task of the head.
    pub task: TaskName,
    /// The model with its head: a folder, local or at s3://, gs:// or az://, or a hub id.
    #[schemars(length(min = 1))]
    pub model: String,
    /// qa: the question for every row.
    #[serde(default)]
    pub question: Option<String>,
    /// qa: the column of the table with each row's question.
    #[serde(default)]
    pub question_column: Option<String>,
    /// choose: the choices for every row.
    #[serde(default)]
    pub choices: Option<Vec<String>>,
    /// choose: the column of the table with each row's choices, a list of texts.
    #[serde(default)]
    pub choices_column: Option<String>,
    /// Options of the task.
    #[serde(flatten)]
    pub options: TaskOptions,
}

impl Annotate {
    /// A column with the defaults of its task.
    pub fn new(name: impl Into<String>, task: TaskName, model: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            task,
            model: model.into(),
            question: None,
            question_column: None,
            choices: None,
            choices_column: None,
            options: TaskOptions::default(),
        }
    }

    /// The task, and its inputs besides the text.
    ///
    /// # Errors
    /// [`TaskError`] when the keys do not make a task with a column.
    pub fn task(&self) -> Result<(TaskSpec, HeadInputs), TaskError> {
        let task = || self.task.to_string();
        let spec = self.options.spec(self.task)?;
        if spec.column_type().is_none() {
            let expected = "a task of one text: reranking needs a query";
            return Err(TaskError::Wrong { key: "task", expected, found: format!("{:?}", task()) });
        }
        let stray = [
            ("question", self.question.is_some(), TaskName::Qa),
            ("question_column", self.question_column.is_some(), TaskName::Qa),
            ("choices", self.choices.is_some(), TaskName::Choose),
            ("choices_column", self.choices_column.is_some(), TaskName::Choose),
        ];
        if let Some((key, ..)) = stray.into_iter().find(|(_, set, of)| *set && *of != self.task) {
            return Err(TaskError::Stray { key, task: task() });
        }
        check_one_of(
            self.task == TaskName::Qa,
            ("question", &self.question),
            ("question_column", &self.question_column),
        )?;
        check_one_of(
            self.task == TaskName::Choose,
            ("choices", &self.choices),
            ("choices_column", &self.choices_column),
        )?;
        if self.choices.as_ref().is_some_and(Vec::is_empty) {
            return Err(TaskError::Wrong { key: "choices", expected: "at least one text", found: "none".to_owned() });
        }
        let inputs = HeadInputs {
            question: self.question.clone(),
            question_column: self.question_column.clone(),
            choices: self.choices.clone().unwrap_or_default(),
            choices_column: self.choices_column.clone(),
        };
        Ok((spec, inputs))
    }
}

/// Checks that at most one of a fixed value and a column is given, and exactly one where one is needed.
fn check_one_of<T>(
    needed: bool,
    fixed: (&'static str, &Option<T>),
    column: (&'static str, &Option<String>),
) -> Result<(), TaskError> {
    match (fixed.1, column.1) {
        (None, None) if needed => Err(TaskError::Wrong {
            key: fixed.0,
            expected: "given, or the column it is in",
            found: "neither".to_owned(),
        }),
        (Some(_), Some(_)) => {
            Err(TaskError::Wrong { key: column.0, expected: "absent next to a fixed value", found: "both".to_owned() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_is_fixed_or_in_a_column() {
        let qa = || Annotate::new("answer", TaskName::Qa, "./qa");
        let message = |annotate: Annotate| annotate.task().unwrap_err().to_string();
        assert_eq!(message(qa()), "`question` must be given, or the column it is in, found neither");
        let fixed = Annotate { question: Some("who?".into()), ..qa() };
        assert!(fixed.task().is_ok());
        let both = Annotate { question_column: Some("q".into()), ..fixed.clone() };
        assert_eq!(message(both), "`question_column` must be absent next to a fixed value, found both");
        assert_eq!(message(Annotate { task: TaskName::Ner, ..fixed }), "`question` does not belong to the task ner");
    }

    #[test]
    fn task_without_a_column_is_refused() {
        let error = Annotate::new("best", TaskName::Rerank, "./reranker").task().unwrap_err().to_string();
        assert!(error.contains("reranking needs a query"), "{error}");
    }
}
