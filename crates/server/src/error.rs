//! What leaves the server when a request cannot be answered, and what keeps it from starting.
//!
//! An answer never holds an address, a path or a credential: what a store or a device says is logged, and the client
//! is told which part failed.

use std::{io, net::SocketAddr, path::PathBuf};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use datafusion::error::DataFusionError;
use polylance_backend::BackendError;
use polylance_schema::with_causes;
use polylance_search::SearchError;
use serde_json::json;

use crate::public_text::public_text;

/// The server could not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Everybody could ask: give a token, or listen to this machine alone.
    #[error("{0} can be reached from other machines, and no token says who may ask")]
    Unprotected(SocketAddr),
    /// The address is taken or not this machine's: choose another.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's own words.
        source: io::Error,
    },
    /// The certificate or its key cannot be used: look at the file.
    #[error("{file}: {message}")]
    Tls {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// There is nothing to serve, or two tables have one name: name others.
    #[error("{0}")]
    Tables(String),
    /// A table or its model cannot be opened.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The system gave no threads.
    #[error("the threads for queries could not be started: {0}")]
    Threads(io::Error),
}

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// The field of the request that is wrong, where one is.
    pub(crate) param: Option<&'static str>,
}

/// Seconds after which a request that was sent away may be tried again.
const RETRY_AFTER: u32 = 1;

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: None, param: None }
    }

    /// The request is wrong.
    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The request is understood, and cannot be answered within the limits.
    pub(crate) fn too_much(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// A request has more inputs than one may have.
    pub(crate) fn too_many(message: String, param: &'static str) -> Self {
        let error = Self::too_much("too_many_inputs", message).param(param);
        error.hint("send them in parts, or start the server with a larger --max-inputs")
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// Something behind the server fails.
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
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "the request has no token that is known here")
            .hint("send the header `Authorization: Bearer TOKEN`")
    }

    pub(crate) fn foreign_host() -> Self {
        Self::new(StatusCode::FORBIDDEN, "foreign_host", "the request is for a name that is not this machine's")
            .hint("ask for localhost, or start the server with a token")
    }

    pub(crate) fn foreign_page() -> Self {
        Self::new(StatusCode::FORBIDDEN, "foreign_page", "a page of another site made the browser send the request")
            .hint("open the server's own page, or send the request from a program")
    }

    pub(crate) fn busy() -> Self {
        Self::unavailable("busy", "too many requests are being worked on").hint("try again in a moment")
    }

    /// What a search or a statement says, about the table of this name.
    pub(crate) fn of_search(error: &SearchError, table: Option<&str>) -> Self {
        let named = table.map_or_else(|| "the table".to_owned(), |table| format!("the table `{table}`"));
        match error {
            SearchError::NoContract { .. } => {
                Self::bad("no_contract", format!("{named} has no embedding contract: a query cannot be embedded"))
                    .hint("search it by words, with the mode `text`, or read it with SQL")
            }
            SearchError::NoTextIndex { .. } => {
                Self::bad("no_text_index", format!("{named} has no index of its words")).param("mode")
            }
            SearchError::Query(error) => Self::bad("invalid_query", public_text(&error.to_string())).param("query"),
            SearchError::Column(error) => {
                Self::bad("no_column", error.to_string()).hint("`GET /v1/tables` lists the columns").param("columns")
            }
            SearchError::Parameter(_) => Self::bad("invalid_sql", error.to_string()).param("sql"),
            SearchError::Filter { reason, .. } => {
                Self::bad("invalid_filter", format!("the condition does not fit: {}", public_text(reason)))
                    .hint("`GET /v1/tables` lists the columns")
                    .param("where")
            }
            SearchError::Backend(error) => Self::of_backend(error),
            SearchError::ReadOnly(message) => {
                Self::new(StatusCode::FORBIDDEN, "read_only", format!("only queries are allowed here: {message}"))
            }
            SearchError::NotAllowed(message) => Self::new(StatusCode::FORBIDDEN, "not_allowed", message.clone()),
            SearchError::TooLarge(message) => {
                Self::too_much("too_large", message.clone()).hint("use shorter texts or lists, or fewer of them")
            }
            SearchError::Model(error) => {
                tracing::error!(error = %with_causes(error.as_ref()), table, "a model is missing");
                let message = format!("the model of {named} is not loaded: its vectors cannot be searched here");
                Self::new(StatusCode::CONFLICT, "model_missing", message).hint(
                    "search by words, with the mode `text`, or start the server anew, with --model where it has moved",
                )
            }
            SearchError::Dimensions { table, backend, .. } => {
                let message = format!("the vectors of {named} have {table} dimensions, those of its model {backend}");
                Self::new(StatusCode::CONFLICT, "model_missing", message).hint("start the server anew with --model")
            }
            SearchError::Sql(error) => Self::of_sql(error),
            SearchError::Storage { source, .. } if is_of_the_request(source) => {
                let message = format!("{named} does not fit what is asked of it: {}", public_text(&source.to_string()));
                Self::bad("unfit_table", message).hint("`GET /v1/tables` lists the columns")
            }
            other => {
                tracing::error!(error = %with_causes(other), table, "a request failed");
                Self::unavailable("unavailable", format!("reading {named} failed"))
            }
        }
    }

    fn of_sql(error: &DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(message) if message.contains("disk") => {
                Self::too_much("too_much_disk", "the statement needs more temporary files than statements have here")
                    .hint("ask for fewer rows, groups or columns")
            }
            DataFusionError::ResourcesExhausted(_) => {
                Self::too_much("too_much_memory", "the statement needs more memory than statements have here")
                    .hint("ask for fewer rows, groups or columns")
            }
            root if is_of_the_store(root) => {
                tracing::error!(%error, "a statement failed");
                Self::unavailable("unavailable", "reading the tables failed")
            }
            _ => Self::bad("invalid_sql", public_text(&error.to_string())).param("sql"),
        }
    }

    pub(crate) fn of_backend(error: &BackendError) -> Self {
        match error {
            BackendError::Input(message) => {
                Self::bad("invalid_input", format!("the model refuses the input: {}", public_text(message)))
                    .param("input")
            }
            other => {
                tracing::error!(error = %with_causes(other), "a model failed");
                Self::unavailable("model_unavailable", "the model failed")
            }
        }
    }
}

/// Whether a table could not be read, whatever the statement was.
fn is_of_the_store(error: &DataFusionError) -> bool {
    match error {
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::ExecutionJoin(_) => true,
        DataFusionError::External(inner) => match inner.downcast_ref::<lance_core::Error>() {
            Some(error) => !is_of_the_request(error),
            None => inner.is::<io::Error>(),
        },
        _ => false,
    }
}

/// Whether Lance refuses what it was given, rather than failing at it.
fn is_of_the_request(error: &lance_core::Error) -> bool {
    matches!(error, lance_core::Error::InvalidInput { .. } | lance_core::Error::NotSupported { .. })
}

/// How an error is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `{"error": {"code", "message", "hint"}}`.
    Own,
    /// The same with `type` and `param`, as clients of `OpenAI`'s interface read it.
    OpenAi,
}

impl ApiError {
    pub(crate) fn response(&self, shape: Shape) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message, "hint": self.hint });
        if shape == Shape::OpenAi {
            let kind = match self.status {
                StatusCode::UNAUTHORIZED => "authentication_error",
                status if status.is_server_error() => "server_error",
                _ => "invalid_request_error",
            };
            error["type"] = json!(kind);
            error["param"] = json!(self.param);
        }
        let mut response = (self.status, Json(json!({ "error": error }))).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
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
        let mut response = self.response(Shape::Own);
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_says_stays_here() {
        let uri = "s3://private/docs.lance".to_owned();
        for error in [
            SearchError::NoTable { uri: uri.clone() },
            SearchError::NoContract { uri: uri.clone() },
            SearchError::NoTextIndex { uri: uri.clone() },
            SearchError::Sql(Box::new(DataFusionError::External(Box::new(io::Error::other(uri.clone()))))),
            SearchError::Model(uri.clone().into()),
            SearchError::Backend(BackendError::Device { device: "cpu".into(), message: uri.clone() }),
        ] {
            let answer = ApiError::of_search(&error, Some("docs"));
            assert!(!format!("{answer:?}").contains("private"), "{answer:?}");
            assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        }
    }

    #[test]
    fn a_statement_is_told_what_is_wrong_with_it() {
        let status = |error| ApiError::of_search(&SearchError::from(error), None).status;
        assert_eq!(status(DataFusionError::Plan("no column x".into())), StatusCode::BAD_REQUEST);
        assert_eq!(status(DataFusionError::ResourcesExhausted("x".into())), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(status(DataFusionError::Plan("DML not supported: Delete".into())), StatusCode::FORBIDDEN);
    }

    #[test]
    fn a_client_of_openai_finds_type_and_param() {
        let own = ApiError::bad("invalid_input", "no").param("input");
        assert_eq!(own.response(Shape::OpenAi).status(), StatusCode::BAD_REQUEST);
        assert_eq!(ApiError::busy().response(Shape::Own).headers()[header::RETRY_AFTER], "1");
        assert!(own.into_response().extensions().get::<ApiError>().is_some());
    }
}
