//! Why a file, or the rest of it, cannot be read.

use std::{error::Error, io, iter};

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

/// Why a file, or the rest of it, cannot be read: one row of the quarantine, unless the store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{0}")]
    Storage(#[from] object_store::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Parquet(#[from] ParquetError),
    #[error("{0}")]
    Arrow(#[from] ArrowError),
    #[error("{0}")]
    Content(String),
    /// The file is not the one that was listed.
    #[error("the file changed while it was read")]
    Changed,
}

impl ReadError {
    /// Whether the store failed and not the file: other files will fail as well, and this one may be good.
    pub(crate) fn is_store_failure(&self) -> bool {
        self.store_error().is_some_and(|error| !matches!(error, object_store::Error::NotFound { .. }))
    }

    /// The store's error among the causes.
    pub(crate) fn store_error(&self) -> Option<&object_store::Error> {
        self.causes().find_map(|error| error.downcast_ref())
    }

    /// Whether the file is no longer the one that was listed, so that the rest does not match the rows read before.
    pub(crate) fn is_change(&self) -> bool {
        use object_store::Error::{NotFound, Precondition};

        self.causes().any(|error| {
            matches!(error.downcast_ref(), Some(Self::Changed))
                || matches!(error.downcast_ref(), Some(NotFound { .. } | Precondition { .. }))
        })
    }

    /// The error and its causes, also inside of errors that hide them from `source`.
    fn causes(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        let first: &(dyn Error + 'static) = self;
        iter::successors(Some(first), |&error| match (error.downcast_ref(), error.downcast_ref()) {
            (Some(ParquetError::External(inner)), _) => Some(inner.as_ref()),
            (_, Some(error)) => io::Error::get_ref(error).map(|inner| inner as &(dyn Error + 'static)),
            _ => error.source(),
        })
    }
}
