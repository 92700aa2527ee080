//! `GET /v1/tables/{name}/documents/{doc_id}`: a document's chunks.

use axum::{Json, extract::State, routing::get};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::Route;
use crate::{error::ApiError, extract::Names, openapi::Operation, rows::rows, state::App, work::Kind};

#[derive(Debug, Serialize, JsonSchema)]
struct Document {
    doc_id: String,
    /// In their order.
    #[schemars(with = "Vec<Map<String, Value>>")]
    chunks: Vec<Box<RawValue>>,
}

pub(super) fn route() -> Route {
    let path = "/v1/tables/{name}/documents/{doc_id}";
    Route {
        operation: Operation::get(path, "A document's chunks, in their order").answer::<Document>(),
        handler: get(document),
    }
}

async fn document(
    State(app): State<App>,
    Names((table, doc_id)): Names<(String, String)>,
) -> Result<Json<Document>, ApiError> {
    let found = app.work_on(Kind::Search, Some(&table), async move |_, _, name, table| {
        let found = Box::pin(table.document(&doc_id)).await;
        let chunks = rows(&found.map_err(|error| ApiError::of_search(&error, Some(&name)))?)?;
        if chunks.is_empty() {
            return Err(ApiError::not_found("no_document", "the table has no document of this name"));
        }
        Ok(Document { doc_id, chunks })
    });
    Ok(Json(found.await?))
}
