//! `GET /v1/tables/{name}/documents/{doc_id}`: the chunks of a document.

use axum::{Json, extract::State, routing::get};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::route::Route;
use crate::{error::ApiError, executor::RequestClass, extract::PathParams, json::rows, openapi::Operation, state::App};

/// A document of a table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentParams {
    /// The table; optional if there is only one.
    pub(super) table: Option<String>,
    /// The id of the document, as the rows of the table have it.
    pub(super) doc_id: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DocumentResponse {
    pub(super) doc_id: String,
    /// In the order of the document.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub(super) chunks: Vec<Box<RawValue>>,
}

pub(super) fn route() -> Route {
    let path = "/v1/tables/{name}/documents/{doc_id}";
    let operation = Operation::get(path, "The chunks of a document, in order").response::<DocumentResponse>();
    Route::new(operation, get(handler))
}

async fn handler(
    State(app): State<App>,
    PathParams((table, doc_id)): PathParams<(String, String)>,
) -> Result<Json<DocumentResponse>, ApiError> {
    Box::pin(document(&app, DocumentParams { table: Some(table), doc_id })).await.map(Json)
}

/// The chunks of a document.
pub(super) async fn document(app: &App, params: DocumentParams) -> Result<DocumentResponse, ApiError> {
    let DocumentParams { table, doc_id } = params;
    let found = app.execute_on_table(RequestClass::Search, table.as_deref(), async move |_, _, name, table| {
        let found = Box::pin(table.document(&doc_id)).await;
        let chunks = rows(&found.map_err(|error| ApiError::from_search(&error, Some(&name)))?)?;
        if chunks.is_empty() {
            return Err(ApiError::not_found("no_document", "the table has no document with this id"));
        }
        Ok(DocumentResponse { doc_id, chunks })
    });
    found.await
}
