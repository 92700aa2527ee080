//! `GET /v1/models`: the models that `/v1/embeddings` accepts, in the form of `OpenAI`'s interface.

use axum::{Json, extract::State, routing::get};
use schemars::JsonSchema;
use serde::Serialize;

use super::{model_names, route::Route};
use crate::{error::ApiError, extract::PathParams, openapi::Operation, state::App};

#[derive(Debug, Serialize, JsonSchema)]
struct ModelsResponse {
    object: &'static str,
    data: Vec<Model>,
}

/// A model of the tables, or a table as a name for its model.
#[derive(Debug, Serialize, JsonSchema)]
struct Model {
    id: String,
    object: &'static str,
    /// The start of the server, in seconds since 1970.
    created: u64,
    owned_by: &'static str,
}

impl Model {
    fn new(id: String, app: &App) -> Self {
        Self { id, object: "model", created: app.started, owned_by: "polylance" }
    }
}

pub(super) fn list() -> Route {
    let operation = Operation::get("/v1/models", "The models that embeddings accepts").response::<ModelsResponse>();
    Route::openai(
        operation,
        get(async |State(app): State<App>| {
            let names = model_names::names(&app.tables.current());
            Json(ModelsResponse {
                object: "list",
                data: names.into_iter().map(|name| Model::new(name, &app)).collect(),
            })
        }),
    )
}

pub(super) fn one() -> Route {
    let operation = Operation::get("/v1/models/{model}", "A model that embeddings accepts").response::<Model>();
    Route::openai(operation, get(model))
}

async fn model(State(app): State<App>, PathParams(model): PathParams<String>) -> Result<Json<Model>, ApiError> {
    model_names::contract(&app.tables.current(), Some(&model))?;
    Ok(Json(Model::new(model, &app)))
}
