//! `GET /v1/models`: what `/v1/embeddings` may be asked for, as clients of `OpenAI`'s interface list it.

use axum::{Json, extract::State, routing::get};
use schemars::JsonSchema;
use serde::Serialize;

use super::{MODEL, MODELS, Route, embeddings};
use crate::{error::ApiError, extract::Names, openapi::Operation, state::App};

#[derive(Debug, Serialize, JsonSchema)]
struct Listing {
    object: &'static str,
    data: Vec<Model>,
}

/// A model of the tables, or a table, whose vectors are made by its model.
#[derive(Debug, Serialize, JsonSchema)]
struct Model {
    id: String,
    object: &'static str,
    /// When the server started, in seconds since 1970.
    created: u64,
    owned_by: &'static str,
}

impl Model {
    fn new(id: String, app: &App) -> Self {
        Self { id, object: "model", created: app.started, owned_by: "polylance" }
    }
}

pub(super) fn list() -> Route {
    Route {
        operation: Operation::get(MODELS, "The models that embeddings may be asked of").answer::<Listing>(),
        handler: get(async |State(app): State<App>| {
            let names = embeddings::names(&app.tables.current());
            Json(Listing { object: "list", data: names.into_iter().map(|name| Model::new(name, &app)).collect() })
        }),
    }
}

pub(super) fn one() -> Route {
    Route {
        operation: Operation::get(MODEL, "Whether embeddings may be asked of a model").answer::<Model>(),
        handler: get(model),
    }
}

async fn model(State(app): State<App>, Names(model): Names<String>) -> Result<Json<Model>, ApiError> {
    embeddings::contract(&app.tables.current(), Some(&model))?;
    Ok(Json(Model::new(model, &app)))
}
