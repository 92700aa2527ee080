//! The boundary: our errors inside DataFusion's.

use datafusion::error::DataFusionError;
use polylance_backend::BackendError;

use crate::SourceError;

impl From<SourceError> for DataFusionError {
    fn from(error: SourceError) -> Self {
        Self::External(Box::new(error))
    }
}

/// A backend's error, to be found again by downcasting.
pub(crate) fn backend(error: BackendError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
