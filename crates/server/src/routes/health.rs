//! `GET /healthz`, `GET /readyz`: for whoever starts, stops and balances servers.

use axum::{Json, extract::State, routing::get};
use schemars::JsonSchema;
use serde::Serialize;

use super::Route;
use crate::{error::ApiError, openapi::Operation, state::App};

#[derive(Debug, Serialize, JsonSchema)]
struct Health {
    status: &'static str,
}

/// Whether the process answers.
pub(super) fn alive() -> Route {
    Route {
        operation: Operation::get("/healthz", "Whether the process answers").answer::<Health>(),
        handler: get(async || Json(Health { status: "ok" })),
    }
}

/// Whether more requests may be sent here.
pub(super) fn ready() -> Route {
    Route {
        operation: Operation::get("/readyz", "Whether more requests may be sent here").answer::<Health>(),
        handler: get(is_ready),
    }
}

/// Tables and models are there before the server listens. Its end makes it unready, and so do work that cannot be ended
/// and stores that do not answer, for as long as they last.
async fn is_ready(State(app): State<App>) -> Result<Json<Health>, ApiError> {
    if app.is_ending() {
        return Err(ApiError::unavailable("ending", "the server is about to end"));
    }
    if let Some(reason) = app.is_held() {
        return Err(ApiError::unavailable("not_ready", reason));
    }
    Ok(Json(Health { status: "ready" }))
}
