//! The boundary: our errors inside DataFusion's.

use std::io;

use datafusion::error::DataFusionError;
use polylance_backend::BackendError;

use crate::error::SourceError;

impl From<SourceError> for DataFusionError {
    fn from(error: SourceError) -> Self {
        Self::External(Box::new(error))
    }
}

/// A backend's error, to be found again by downcasting.
pub(crate) fn backend(error: BackendError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A backend that broke its contract: as many results as inputs.
pub(crate) fn miscounted(call: &str, expected: usize, found: usize) -> DataFusionError {
    DataFusionError::Internal(format!("the backend's {call} gave {found} results for {expected} inputs"))
}

/// A temporary file that failed.
pub(crate) fn temporary(error: io::Error) -> DataFusionError {
    DataFusionError::External(Box::new(SourceError::temporary(error)))
}
