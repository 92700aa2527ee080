//! Around every call: who may ask, how long a call may take to begin its answer, its metrics and its line in the log.

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
use crate::{auth, error::ApiError, host, state::App};

/// The calls of the protocol, which are names in the metrics; what somebody makes up is `other`.
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

/// The service with what surrounds it.
pub(crate) fn router(app: App) -> Router {
    let service = FlightServiceServer::new(Flight { app: app.clone() }).max_decoding_message_size(app.limits.body);
    Routes::new(service).into_axum_router().layer(from_fn_with_state(app, guard))
}

async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let call = call(request.uri());
    let response = if let Err(error) = check(&app, call, &request) {
        Status::from(error).into_http()
    } else {
        let answered = timeout(patience(&app), next.run(request)).await;
        answered.unwrap_or_else(|_| Status::deadline_exceeded("the call took too long").into_http())
    };
    let code = code(response.headers());
    app.metrics.flew(call, code);
    tracing::info!(call, ?code, ms = started.elapsed().as_millis() as u64, "answered a call");
    response
}

/// A call's own work has its limit, and the client one for sending what it asks.
fn patience(app: &App) -> Duration {
    app.limits.body_time + 2 * app.limits.queue + app.limits.time
}

fn call(uri: &Uri) -> &'static str {
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    CALLS.into_iter().find(|call| *call == last).unwrap_or("other")
}

fn check(app: &App, call: &str, request: &Request) -> Result<(), ApiError> {
    if app.tokens.is_empty() && !request.uri().authority().is_none_or(|authority| host::is_local(authority.as_str())) {
        return Err(ApiError::foreign_host());
    }
    // A handshake is where a driver brings its token; it looks at that by itself.
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| auth::bearer(value.as_bytes()));
    if call == "Handshake" || auth::is_known(&app.tokens, given) { Ok(()) } else { Err(ApiError::unauthorized()) }
}

/// What the head of the answer says; an error after that ends the answer, and is logged where it happens.
fn code(headers: &HeaderMap) -> Code {
    headers.get("grpc-status").map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}
