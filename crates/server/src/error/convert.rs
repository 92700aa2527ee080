//! Errors of searches, statements and models as errors for clients.

use std::io;

use axum::http::StatusCode;
use datafusion::error::DataFusionError;
use polylance_backend::BackendError;
use polylance_schema::with_causes;
use polylance_search::SearchError;

use super::api_error::ApiError;
use crate::redact::redact_message;

impl ApiError {
    /// The error of a search or a statement on the table of this name.
    pub(crate) fn from_search(error: &SearchError, table: Option<&str>) -> Self {
        let named = table.map_or_else(|| "the table".to_owned(), |table| format!("the table `{table}`"));
        match error {
            SearchError::NoContract { .. } => {
                Self::bad("no_contract", format!("{named} has no embedding contract: a query cannot be embedded"))
                    .hint("use full-text search (mode `text`), or read the table with SQL")
            }
            SearchError::NoTextIndex { .. } => {
                Self::bad("no_text_index", format!("{named} has no full-text index")).param("mode")
            }
            SearchError::Query(error) => Self::bad("invalid_query", redact_message(&error.to_string())).param("query"),
            SearchError::Column(error) => {
                Self::bad("no_column", error.to_string()).hint("`GET /v1/tables` lists the columns").param("columns")
            }
            SearchError::Parameter(_) => Self::bad("invalid_sql", error.to_string()).param("sql"),
            SearchError::Filter { reason, .. } => {
                Self::bad("invalid_filter", format!("the condition does not fit: {}", redact_message(reason)))
                    .hint("`GET /v1/tables` lists the columns")
                    .param("where")
            }
            SearchError::Backend(error) => Self::from_backend(error),
            SearchError::ReadOnly(message) => {
                Self::new(StatusCode::FORBIDDEN, "read_only", format!("only queries are allowed here: {message}"))
            }
            SearchError::NotAllowed(message) => Self::new(StatusCode::FORBIDDEN, "not_allowed", message.clone()),
            SearchError::TooLarge(message) => {
                Self::too_much("too_large", message.clone()).hint("use shorter texts or lists, or fewer of them")
            }
            SearchError::Model(error) => {
                tracing::error!(error = %with_causes(error.as_ref()), table, "a model is missing");
                let message = format!("the model of {named} is not loaded: vector search is not available");
                Self::new(StatusCode::CONFLICT, "model_missing", message).hint(
                    "use full-text search (mode `text`), or restart the server, with --model if the model has moved",
                )
            }
            SearchError::Dimensions { table, backend, .. } => {
                let message = format!("the vectors of {named} have {table} dimensions, those of its model {backend}");
                Self::new(StatusCode::CONFLICT, "model_missing", message).hint("restart the server with --model")
            }
            SearchError::Sql(error) => Self::from_sql(error),
            SearchError::Storage { source, .. } if is_refused_input(source) => {
                let message = format!("the request does not fit {named}: {}", redact_message(&source.to_string()));
                Self::bad("unfit_table", message).hint("`GET /v1/tables` lists the columns")
            }
            other => {
                tracing::error!(error = %with_causes(other), table, "a request failed");
                Self::unavailable("unavailable", format!("reading {named} failed"))
            }
        }
    }

    fn from_sql(error: &DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(message) if message.contains("disk") => {
                Self::too_much("too_much_disk", "the statement needs more temporary files than the server allows")
                    .hint("request fewer rows, groups or columns")
            }
            DataFusionError::ResourcesExhausted(_) => {
                Self::too_much("too_much_memory", "the statement needs more memory than the server allows")
                    .hint("request fewer rows, groups or columns")
            }
            root if is_storage_failure(root) => {
                tracing::error!(%error, "a statement failed");
                Self::unavailable("unavailable", "reading the tables failed")
            }
            _ => Self::bad("invalid_sql", redact_message(&error.to_string())).param("sql"),
        }
    }

    pub(crate) fn from_backend(error: &BackendError) -> Self {
        match error {
            BackendError::Input(message) => {
                Self::bad("invalid_input", format!("the model refuses the input: {}", redact_message(message)))
                    .param("input")
            }
            other => {
                tracing::error!(error = %with_causes(other), "a model failed");
                Self::unavailable("model_unavailable", "the model failed")
            }
        }
    }
}

/// Whether a table could not be read, for any statement.
fn is_storage_failure(error: &DataFusionError) -> bool {
    match error {
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::ExecutionJoin(_) => true,
        DataFusionError::External(inner) => match inner.downcast_ref::<lance_core::Error>() {
            Some(error) => !is_refused_input(error),
            None => inner.is::<io::Error>(),
        },
        _ => false,
    }
}

/// Whether Lance refuses its input, rather than failing at it.
fn is_refused_input(error: &lance_core::Error) -> bool {
    matches!(error, lance_core::Error::InvalidInput { .. } | lance_core::Error::NotSupported { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_stores_and_devices_are_not_revealed() {
        let uri = "s3://private/docs.lance".to_owned();
        for error in [
            SearchError::NoTable { uri: uri.clone() },
            SearchError::NoContract { uri: uri.clone() },
            SearchError::NoTextIndex { uri: uri.clone() },
            SearchError::Sql(Box::new(DataFusionError::External(Box::new(io::Error::other(uri.clone()))))),
            SearchError::Model(uri.clone().into()),
            SearchError::Backend(BackendError::Device { device: "cpu".into(), message: uri.clone() }),
        ] {
            let answer = ApiError::from_search(&error, Some("docs"));
            assert!(!format!("{answer:?}").contains("private"), "{answer:?}");
            assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        }
    }

    #[test]
    fn an_invalid_statement_is_explained() {
        let status = |error| ApiError::from_search(&SearchError::from(error), None).status;
        assert_eq!(status(DataFusionError::Plan("no column x".into())), StatusCode::BAD_REQUEST);
        assert_eq!(status(DataFusionError::ResourcesExhausted("x".into())), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(status(DataFusionError::Plan("DML not supported: Delete".into())), StatusCode::FORBIDDEN);
    }
}
