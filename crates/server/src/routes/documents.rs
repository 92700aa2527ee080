//! `GET /v1/tables/{name}/documents/{doc_id}`: the chunks of a document.

use axum::{Json, extract::State, routing::get};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::route::Route;
use crate::{error::ApiError, executor::RequestClass, extract::PathParams, json::rows, openapi::Operation, state::App};

#[derive(Debug, Serialize, JsonSchema)]
struct DocumentResponse {
    doc_id: String,
    /// In the order of the document.
    #[schemars(with = "Vec<Map<String, Value>>")]
    chunks: Vec<Box<RawValue>>,
}

pub(super) fn route() -> Route {
    let path = "/v1/tables/{name}/documents/{doc_id}";
    let operation = Operation::get(path, "The chunks of a document, in order").response::<DocumentResponse>();
    Route::new(operation, get(document))
}

async fn document(
    State(app): State<App>,
    PathParams((table, doc_id)): PathParams<(String, String)>,
) -> Result<Json<DocumentResponse>, ApiError> {
    let found = app.execute_on_table(RequestClass::Search, Some(&table), async move |_, _, name, table| {
        let found = Box::pin(table.document(&doc_id)).await;
        let chunks = rows(&found.map_err(|error| ApiError::from_search(&error, Some(&name)))?)?;
        if chunks.is_empty() {
            return Err(ApiError::not_found("no_document", "the table has no document with this id"));
        }
        Ok(DocumentResponse { doc_id, chunks })
    });
    Ok(Json(found.await?))
}
