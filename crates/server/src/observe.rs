//! Around every request: a name for it, a line in the log, its metrics, and errors in the shape of its route.

use std::{panic::AssertUnwindSafe, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use uuid::Uuid;

use crate::{
    error::{ApiError, Shape},
    routes,
    state::App,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of a name that a client gives its request.
const LONGEST_ID: usize = 64;

/// The outermost layer.
pub(crate) async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let shape = if routes::is_openai(request.uri().path()) { Shape::OpenAi } else { Shape::Own };

    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        tracing::error!(id, route, "a handler panicked");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request failed").into_response()
    });
    let error = response.extensions_mut().remove::<ApiError>();
    if let (Some(error), Shape::OpenAi) = (&error, shape) {
        response = error.response(shape);
    }

    let time = started.elapsed();
    let status = response.status();
    app.metrics.answered(&route, label(&method), status.as_u16(), time);
    let code = error.map_or("", |error| error.code);
    tracing::info!(id, %method, route, status = status.as_u16(), code, ms = time.as_millis() as u64, "answered");
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The name that the client gave, when it can stand in a log; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |id: &&str| {
        !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(plain);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// Methods that somebody makes up are one.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    }
}
