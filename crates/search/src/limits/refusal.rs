//! The errors of limits.

use datafusion::error::DataFusionError;

use crate::SearchError;

/// A statement or a condition that a limited session does not run.
pub(super) fn not_allowed(message: String) -> DataFusionError {
    DataFusionError::External(Box::new(SearchError::NotAllowed(message)))
}

/// A value, or a computation, beyond a limit.
pub(super) fn too_large(message: String) -> DataFusionError {
    DataFusionError::External(Box::new(SearchError::TooLarge(message)))
}

/// The message for a function that is on no list.
pub(super) fn unlisted_function(name: &str) -> String {
    match name {
        "named_struct" | "struct" => format!("`{name}` is not allowed here: select the columns one by one"),
        _ => format!("`{name}` is not one of the functions that are allowed here"),
    }
}
