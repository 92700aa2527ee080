//! `POST /mcp`: the tables as tools for assistants, by the Model Context Protocol over Streamable HTTP.
//!
//! The route keeps no sessions and sends nothing on its own: every request is answered with JSON, and there is no
//! stream to open. A tool runs the function of an HTTP route, with its checks, limits and errors.

mod batch;
mod message;
mod methods;
mod text;
mod tools;
mod version;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::value::RawValue;

use self::{
    message::{INITIALIZE, Message, Refusal, Reply},
    version::ProtocolVersion,
};
use super::route::Route;
use crate::{error::RpcError, extract::JsonBytes, openapi::Operation, state::App};

/// The description has no schemas: the protocol defines its messages, and `tools/list` describes the tools.
pub(super) fn route() -> Route {
    let operation = Operation::post("/mcp", "The tables as tools for assistants: JSON-RPC messages of MCP");
    Route::json_rpc(operation, post(handler))
}

/// The responses to a body.
#[derive(Debug)]
enum Replies {
    /// The body has no request.
    None,
    One(Reply),
    Batch(Vec<Reply>),
}

async fn handler(State(app): State<App>, headers: HeaderMap, JsonBytes(body): JsonBytes) -> Response {
    match Box::pin(replies(&app, &headers, &body)).await {
        Ok(Replies::None) => StatusCode::ACCEPTED.into_response(),
        Ok(Replies::One(reply)) => Json(reply).into_response(),
        Ok(Replies::Batch(replies)) => Json(replies).into_response(),
        Err(refusal) => (StatusCode::BAD_REQUEST, Json(Reply::from(refusal))).into_response(),
    }
}

async fn replies(app: &App, headers: &HeaderMap, body: &[u8]) -> Result<Replies, Refusal> {
    let body: &RawValue = serde_json::from_slice(body)
        .map_err(|error| RpcError::parse_error(format!("the body is not valid JSON: {error}")))?;
    if body.get().starts_with('[') {
        let version = ProtocolVersion::of_headers(headers)?;
        return batch::replies(app, version, body).await;
    }
    match Message::parse(body)? {
        // The client does not know the version of the server yet.
        Message::Request(request) if request.method == INITIALIZE => {
            Ok(Replies::One(methods::initialize(app, &request)))
        }
        Message::Request(request) => {
            ProtocolVersion::of_headers(headers).map_err(|error| request.refused(error))?;
            Ok(Replies::One(Box::pin(methods::answer(app, &request)).await))
        }
        Message::NoReply => {
            ProtocolVersion::of_headers(headers)?;
            Ok(Replies::None)
        }
    }
}
