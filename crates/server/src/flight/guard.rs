//! The layer around every call: its token, its timeout, its metrics and its line in the log.

use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::FlightServiceServer;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, Uri, header},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use tokio::time::timeout;
use tonic::{Code, Status, service::Routes};

use super::service::Flight;
use crate::{
    error::ApiError,
    middleware::dns_rebinding::is_local,
    state::App,
    token::{bearer, is_allowed},
};

/// The calls of the protocol, which are labels in the metrics; all others are labelled `other`.
const CALLS: [&str; 10] = [
    "Handshake",
    "ListFlights",
    "GetFlightInfo",
    "PollFlightInfo",
    "GetSchema",
    "DoGet",
    "DoPut",
    "DoExchange",
    "DoAction",
    "ListActions",
];

/// The service with the layer around it.
pub(crate) fn router(app: App) -> Router {
    let service =
        FlightServiceServer::new(Flight { app: app.clone() }).max_decoding_message_size(app.limits.max_body_bytes);
    Routes::new(service).into_axum_router().layer(from_fn_with_state(app, guard))
}

async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let call = call_name(request.uri());
    let response = if let Err(error) = check_access(&app, call, &request) {
        Status::from(error).into_http()
    } else {
        let answered = timeout(call_timeout(&app), next.run(request)).await;
        answered.unwrap_or_else(|_| Status::deadline_exceeded("the call timed out").into_http())
    };
    let code = status_code(response.headers());
    app.metrics.flight_call(call, code);
    tracing::info!(call, ?code, ms = started.elapsed().as_millis() as u64, "answered a call");
    response
}

/// The time until the response begins: the client sends its request, the request waits and runs.
fn call_timeout(app: &App) -> Duration {
    app.limits.body_timeout + 2 * app.limits.queue_timeout + app.limits.request_timeout
}

fn call_name(uri: &Uri) -> &'static str {
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    CALLS.into_iter().find(|call| *call == last).unwrap_or("other")
}

fn check_access(app: &App, call: &str, request: &Request) -> Result<(), ApiError> {
    if app.tokens.is_empty() && !request.uri().authority().is_none_or(|authority| is_local(authority.as_str())) {
        return Err(ApiError::foreign_host());
    }
    // A handshake contains the token of the driver, and checks it itself.
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    if call == "Handshake" || is_allowed(&app.tokens, token) { Ok(()) } else { Err(ApiError::unauthorized()) }
}

/// The status in the head of the response. A later error ends the response, and is logged where it happens.
fn status_code(headers: &HeaderMap) -> Code {
    headers.get("grpc-status").map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}
