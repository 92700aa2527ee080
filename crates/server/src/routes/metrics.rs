//! `GET /metrics`: the metrics for Prometheus.

use axum::{extract::State, http::header, response::IntoResponse, routing::get};

use super::route::Route;
use crate::{openapi::Operation, state::App};

const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn route() -> Route {
    let operation = Operation::get("/metrics", "The metrics, for Prometheus");
    Route::new(operation, get(metrics))
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], app.metrics.text(app.running_requests()))
}
