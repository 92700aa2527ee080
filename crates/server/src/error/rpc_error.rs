//! The errors of JSON-RPC 2.0, and those that the Model Context Protocol adds.

use serde::Serialize;
use serde_json::{Value, json};

use super::api_error::ApiError;

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const INTERNAL_ERROR: i32 = -32603;
/// The first of the codes that a server defines itself.
const REFUSED: i32 = -32000;
/// Newer clients, which begin with a revision of their own, read the supported ones from this error.
const UNSUPPORTED_PROTOCOL_VERSION: i32 = -32022;

/// The `error` of a JSON-RPC response.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RpcError {
    code: i32,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

impl RpcError {
    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// The body is not JSON.
    pub(crate) fn parse_error(reason: impl Into<String>) -> Self {
        Self::new(PARSE_ERROR, reason)
    }

    /// The body is JSON, and not a message or not one that is allowed here.
    pub(crate) fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(INVALID_REQUEST, message)
    }

    pub(crate) fn method_not_found(message: impl Into<String>) -> Self {
        Self::new(METHOD_NOT_FOUND, message)
    }

    pub(crate) fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(INTERNAL_ERROR, message)
    }

    pub(crate) fn unsupported_protocol_version(requested: &str, supported: &[&str]) -> Self {
        let message = format!("unsupported protocol version: the server supports {}", supported.join(", "));
        let data = json!({ "supported": supported, "requested": requested });
        Self { data: Some(data), ..Self::new(UNSUPPORTED_PROTOCOL_VERSION, message) }
    }

    /// An error of a route or of a layer around it.
    pub(crate) fn refused(error: &ApiError) -> Self {
        let data = json!({ "code": error.code, "hint": error.hint });
        Self { data: Some(data), ..Self::new(REFUSED, error.message.as_str()) }
    }
}
