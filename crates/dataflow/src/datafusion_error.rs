//! Errors of this crate and of the backend inside DataFusion's errors.

use std::io;

use datafusion::error::DataFusionError;
use polylance_backend::BackendError;

use crate::error::SourceError;

impl From<SourceError> for DataFusionError {
    fn from(error: SourceError) -> Self {
        Self::External(Box::new(error))
    }
}

/// A backend's error, which callers find again by downcasting.
pub(crate) fn backend(error: BackendError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A backend that broke its contract, by which a call returns as many results as it has inputs.
pub(crate) fn miscounted(call: &str, expected: usize, found: usize) -> DataFusionError {
    DataFusionError::Internal(format!("the backend's {call} returned {found} results for {expected} inputs"))
}

/// An error of a temporary file.
pub(crate) fn temporary(error: io::Error) -> DataFusionError {
    DataFusionError::External(Box::new(SourceError::temporary(error)))
}
