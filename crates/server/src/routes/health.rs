//! `GET /healthz`, `GET /readyz`: liveness and readiness probes.

use axum::{Json, extract::State, routing::get};
use schemars::JsonSchema;
use serde::Serialize;

use super::route::Route;
use crate::{error::ApiError, openapi::Operation, state::App};

#[derive(Debug, Serialize, JsonSchema)]
struct HealthResponse {
    status: &'static str,
}

/// The liveness probe.
pub(super) fn alive() -> Route {
    let operation = Operation::get("/healthz", "Whether the process answers").response::<HealthResponse>();
    Route::new(operation, get(async || Json(HealthResponse { status: "ok" })))
}

/// The readiness probe.
pub(super) fn ready() -> Route {
    let operation = Operation::get("/readyz", "Whether clients may send more requests").response::<HealthResponse>();
    Route::new(operation, get(is_ready))
}

/// Tables and models are loaded before the server listens. It is not ready during shutdown, while all threads are stuck,
/// and while no store answers.
async fn is_ready(State(app): State<App>) -> Result<Json<HealthResponse>, ApiError> {
    if app.is_shutting_down() {
        return Err(ApiError::unavailable("ending", "the server is shutting down"));
    }
    if let Some(reason) = app.not_ready_reason() {
        return Err(ApiError::unavailable("not_ready", reason));
    }
    Ok(Json(HealthResponse { status: "ready" }))
}
