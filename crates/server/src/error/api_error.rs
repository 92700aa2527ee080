//! An error that a client receives.
//!
//! It never contains an address, a path or a credential: the message of a store or a device is logged, and the client
//! learns which part failed.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{rpc_error::RpcError, shape::ErrorShape};
use crate::redact::TableAddresses;

/// Seconds after which a client may retry a request that was refused as busy.
const RETRY_AFTER_SECONDS: u32 = 1;

/// A response that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// The wrong field of the request, if there is one.
    pub(crate) param: Option<&'static str>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: None, param: None }
    }

    /// The request is wrong.
    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The request is understood, and exceeds the limits.
    pub(crate) fn too_much(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// The request has more inputs than allowed.
    pub(crate) fn too_many_inputs(message: String, param: &'static str) -> Self {
        let error = Self::too_much("too_many_inputs", message).param(param);
        error.hint("send them in parts, or start the server with a larger --max-inputs")
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// The server, a store or a model cannot answer now.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(crate) fn param(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "the request has no valid token")
            .hint("send the header `Authorization: Bearer TOKEN`")
    }

    pub(crate) fn foreign_host() -> Self {
        Self::new(StatusCode::FORBIDDEN, "foreign_host", "the host name of the request is not this machine's")
            .hint("use localhost, or start the server with a token")
    }

    pub(crate) fn foreign_page() -> Self {
        Self::new(StatusCode::FORBIDDEN, "foreign_page", "a page of another site made the browser send the request")
            .hint("open the server's own page, or send the request from a program")
    }

    pub(crate) fn busy() -> Self {
        Self::unavailable("busy", "too many requests are running").hint("try again in a moment")
    }

    /// The same error without any address of a table in its message.
    pub(crate) fn redacted(self, addresses: &TableAddresses) -> Self {
        Self { message: addresses.redact(&self.message), ..self }
    }

    /// Code, message and hint, the same in every shape.
    pub(crate) fn fields(&self) -> Value {
        json!({ "code": self.code, "message": self.message, "hint": self.hint })
    }

    pub(crate) fn response(&self, shape: ErrorShape) -> Response {
        let body = match shape {
            ErrorShape::Own => json!({ "error": self.fields() }),
            ErrorShape::OpenAi => {
                let mut error = self.fields();
                let kind = match self.status {
                    StatusCode::UNAUTHORIZED => "authentication_error",
                    status if status.is_server_error() => "server_error",
                    _ => "invalid_request_error",
                };
                error["type"] = json!(kind);
                error["param"] = json!(self.param);
                json!({ "error": error })
            }
            ErrorShape::JsonRpc => json!({ "jsonrpc": "2.0", "id": null, "error": RpcError::refused(self) }),
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

impl IntoResponse for ApiError {
    /// The error stays with the response, so that `observe` can log it and write it in the shape of its route.
    fn into_response(self) -> Response {
        let mut response = self.response(ErrorShape::Own);
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_clients_receive_type_and_param() {
        let own = ApiError::bad("invalid_input", "no").param("input");
        assert_eq!(own.response(ErrorShape::OpenAi).status(), StatusCode::BAD_REQUEST);
        assert_eq!(ApiError::busy().response(ErrorShape::Own).headers()[header::RETRY_AFTER], "1");
        assert!(own.into_response().extensions().get::<ApiError>().is_some());
    }
}
