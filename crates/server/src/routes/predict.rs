//! `POST /v1/predict`: what a head says of texts.

use axum::{Json, extract::State, routing::post};
use polylance_backend::AnnotateInput;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{PREDICT, Route};
use crate::{
    annotations::annotation,
    error::ApiError,
    extract::{JsonBody, null_is_absent},
    openapi::Operation,
    state::App,
    work::Kind,
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The head's name, as the server was started with it.
    head: String,
    inputs: Vec<Input>,
}

/// A text, or what a task needs beside it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "an input is a text, or an object with `text`, `question` and `choices`")]
enum Input {
    Text(String),
    More(More),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct More {
    text: String,
    question: Option<String>,
    #[serde(default, deserialize_with = "null_is_absent")]
    choices: Vec<String>,
}

impl From<Input> for AnnotateInput {
    fn from(input: Input) -> Self {
        match input {
            Input::Text(text) => Self { text, ..Self::default() },
            Input::More(More { text, question, choices }) => Self { text, question, choices },
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct Predicted {
    head: String,
    task: &'static str,
    /// One an input, in their order: what the task yields, or `error`.
    #[schemars(with = "Vec<Map<String, Value>>")]
    results: Vec<Value>,
}

pub(super) fn route() -> Route {
    Route {
        operation: Operation::post(PREDICT, "What a head says of texts").body::<Asked>().answer::<Predicted>(),
        handler: post(predict),
    }
}

async fn predict(State(app): State<App>, JsonBody(asked): JsonBody<Asked>) -> Result<Json<Predicted>, ApiError> {
    let most = app.limits.inputs;
    let choices = |input: &Input| if let Input::More(more) = input { more.choices.len() } else { 0 };
    let count: usize = asked.inputs.iter().map(|input| choices(input).max(1)).sum();
    if count > most {
        let message = format!("there are {count} inputs, with their choices, and may be {most}");
        return Err(ApiError::too_many(message, "inputs"));
    }
    let Some(head) = app.models.heads().get(&asked.head).cloned() else {
        let names: Vec<&str> = app.models.heads().keys().map(String::as_str).collect();
        let hint = if names.is_empty() {
            "start the server with --head NAME=TASK:MODEL".to_owned()
        } else {
            format!("the heads are {}", names.join(", "))
        };
        return Err(ApiError::not_found("no_head", "there is no head of this name").hint(hint).param("head"));
    };
    let task = head.0.spec().name();
    let Asked { head: name, inputs } = asked;
    let results = app.work(Kind::Search, async move |_, _| {
        let inputs: Vec<AnnotateInput> = inputs.into_iter().map(AnnotateInput::from).collect();
        let answers = head.0.annotate(inputs.clone()).await.map_err(|error| ApiError::of_backend(&error))?;
        Ok(inputs.iter().zip(answers).map(|(input, answer)| annotation(input, answer)).collect::<Vec<_>>())
    });
    Ok(Json(Predicted { results: results.await?, head: name, task }))
}
