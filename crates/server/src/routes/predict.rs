//! `POST /v1/predict`: the results of a head for texts.

use axum::{Json, extract::State, routing::post};
use polylance_backend::AnnotateInput;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::route::Route;
use crate::{
    error::ApiError,
    executor::RequestClass,
    extract::{InputsBody, null_is_absent},
    json::annotation,
    openapi::Operation,
    state::App,
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PredictRequest {
    /// The head's name, as the server was started with it.
    head: String,
    inputs: Vec<PredictInput>,
}

/// A text, or a text with the other inputs of a task.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "an input is a text, or an object with `text`, `question` and `choices`")]
enum PredictInput {
    Text(String),
    Fields(InputFields),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InputFields {
    text: String,
    question: Option<String>,
    #[serde(default, deserialize_with = "null_is_absent")]
    choices: Vec<String>,
}

impl From<PredictInput> for AnnotateInput {
    fn from(input: PredictInput) -> Self {
        match input {
            PredictInput::Text(text) => Self { text, ..Self::default() },
            PredictInput::Fields(InputFields { text, question, choices }) => Self { text, question, choices },
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct PredictResponse {
    head: String,
    task: &'static str,
    /// One per input, in order: the fields of the task, or `error`.
    #[schemars(with = "Vec<Map<String, Value>>")]
    results: Vec<Value>,
}

pub(super) fn route() -> Route {
    let operation = Operation::post("/v1/predict", "The results of a head for texts")
        .body::<PredictRequest>()
        .response::<PredictResponse>();
    Route::new(operation, post(predict))
}

async fn predict(
    State(app): State<App>,
    InputsBody(request): InputsBody<PredictRequest>,
) -> Result<Json<PredictResponse>, ApiError> {
    let max_inputs = app.limits.max_inputs;
    let choices = |input: &PredictInput| match input {
        PredictInput::Text(_) => 0,
        PredictInput::Fields(fields) => fields.choices.len(),
    };
    let count: usize = request.inputs.iter().map(|input| choices(input).max(1)).sum();
    if count > max_inputs {
        let message = format!("there are {count} inputs, counting their choices: at most {max_inputs} are allowed");
        return Err(ApiError::too_many_inputs(message, "inputs"));
    }
    let Some(head) = app.models.heads().get(&request.head).cloned() else {
        let names: Vec<&str> = app.models.heads().keys().map(String::as_str).collect();
        let hint = if names.is_empty() {
            "start the server with --head NAME=TASK:MODEL".to_owned()
        } else {
            format!("the heads are {}", names.join(", "))
        };
        return Err(ApiError::not_found("no_head", "there is no head with this name").hint(hint).param("head"));
    };
    let task = head.0.spec().name();
    let PredictRequest { head: name, inputs } = request;
    let results = app.execute(RequestClass::Search, async move |_, _| {
        let inputs: Vec<AnnotateInput> = inputs.into_iter().map(AnnotateInput::from).collect();
        let answers = head.0.annotate(inputs.clone()).await.map_err(|error| ApiError::from_backend(&error))?;
        Ok(inputs.iter().zip(answers).map(|(input, answer)| annotation(input, answer)).collect::<Vec<_>>())
    });
    Ok(Json(PredictResponse { results: results.await?, head: name, task }))
}
