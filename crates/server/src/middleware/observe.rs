//! Gives every request an id, a line in the log and metrics, and its errors the shape of its route.

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
    error::{ApiError, ErrorShape, ErrorShapes},
    state::App,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Bytes of an id that a client gives its request.
const MAX_REQUEST_ID_BYTES: usize = 64;

/// The outermost layer.
pub(crate) async fn observe(
    State((app, error_shapes)): State<(App, ErrorShapes)>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let error_shape = error_shapes.of_path(request.uri().path());

    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        tracing::error!(id, route, "a handler panicked");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request failed").into_response()
    });
    let error = response.extensions_mut().remove::<ApiError>();
    if let Some(error) = error.as_ref().filter(|_| error_shape != ErrorShape::Own) {
        let allow = response.headers_mut().remove(header::ALLOW);
        response = error.response(error_shape);
        response.headers_mut().extend(allow.map(|methods| (header::ALLOW, methods)));
    }

    let time = started.elapsed();
    let status = response.status();
    app.metrics.http_request(&route, method_label(&method), status.as_u16(), time);
    let code = error.map_or("", |error| error.code);
    tracing::info!(id, %method, route, status = status.as_u16(), code, ms = time.as_millis() as u64, "answered");
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The id that the client gave, if it is safe in a log; otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    let is_safe = |id: &&str| {
        !id.is_empty()
            && id.len() <= MAX_REQUEST_ID_BYTES
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_safe);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// The method in the metrics: labels must be few, so all unusual methods share one.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    }
}
