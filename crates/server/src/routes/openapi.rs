//! `GET /v1/openapi.json`: the description of the routes.

use axum::{Json, routing::get};

use super::route::Route;
use crate::openapi::{Operation, document};

/// The route that describes the others and itself.
pub(super) fn route(others: Vec<&Operation>) -> Route {
    let operation = Operation::get("/v1/openapi.json", "This description");
    let mut operations: Vec<&Operation> = others;
    operations.push(&operation);
    let document = document(operations);
    Route::new(operation, get(move || async move { Json(document) }))
}
