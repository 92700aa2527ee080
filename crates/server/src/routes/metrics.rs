//! `GET /metrics`: for Prometheus.

use axum::{extract::State, http::header, response::IntoResponse, routing::get};

use super::Route;
use crate::{openapi::Operation, state::App};

/// The format that Prometheus reads.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn route() -> Route {
    Route { operation: Operation::get("/metrics", "What is counted, for Prometheus"), handler: get(metrics) }
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, TEXT)], app.metrics.text(app.in_work()))
}
