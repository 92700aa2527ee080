//! Lets only requests with a known token pass.

use axum::{
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::Response,
};

use crate::{
    error::ApiError,
    state::App,
    token::{bearer, is_allowed},
};

pub(crate) async fn authorize(State(app): State<App>, request: Request, next: Next) -> Result<Response, ApiError> {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    if is_allowed(&app.tokens, token) { Ok(next.run(request).await) } else { Err(ApiError::unauthorized()) }
}
