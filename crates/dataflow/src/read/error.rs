//! Why a file, or the rest of it, cannot be read.

use std::{error::Error, io, iter};

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use polylance_iceberg::IcebergError;

/// Why a file, or the rest of it, cannot be read: one row of the quarantine, unless the store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Storage(#[from] object_store::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Lance(Box<lance::Error>),
    #[error(transparent)]
    Iceberg(Box<IcebergError>),
    #[error("{0}")]
    Content(String),
    /// The file is not the one that was listed.
    #[error("the file changed while it was read")]
    Changed,
}

impl From<lance::Error> for ReadError {
    fn from(error: lance::Error) -> Self {
        Self::Lance(Box::new(error))
    }
}

impl From<IcebergError> for ReadError {
    fn from(error: IcebergError) -> Self {
        Self::Iceberg(Box::new(error))
    }
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
                // A file of the version was removed by a cleanup.
                || matches!(error.downcast_ref(), Some(lance::Error::NotFound { .. }))
        })
    }

    /// The error and its causes, also inside of errors that hide them from `source`.
    fn causes(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        let first: &(dyn Error + 'static) = self;
        iter::successors(Some(first), |&error| {
            if let Some(error) = error.downcast_ref::<Self>() {
                error.inner()
            } else if let Some(ParquetError::External(inner)) = error.downcast_ref() {
                Some(inner.as_ref())
            } else if let Some(error) = error.downcast_ref::<io::Error>() {
                error.get_ref().map(|inner| inner as &(dyn Error + 'static))
            } else {
                error.source()
            }
        })
    }

    /// The error of a library in this one.
    fn inner(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Storage(error) => Some(error),
            Self::Io(error) => Some(error),
            Self::Parquet(error) => Some(error),
            Self::Arrow(error) => Some(error),
            Self::Lance(error) => Some(error.as_ref()),
            Self::Iceberg(error) => Some(error.as_ref()),
            Self::Content(_) | Self::Changed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> object_store::Error {
        object_store::Error::PermissionDenied { path: "a.csv".into(), source: "403".into() }
    }

    #[test]
    fn a_store_error_is_found_inside_of_other_errors() {
        let in_parquet = || ReadError::Parquet(ParquetError::External(Box::new(ReadError::Storage(denied()))));
        for error in [ReadError::Storage(denied()), ReadError::Io(io::Error::other(denied())), in_parquet()] {
            assert!(error.is_store_failure() && !error.is_change(), "{error}");
        }
        let changed = ReadError::Io(io::Error::other(ReadError::Changed));
        assert!(changed.is_change() && !changed.is_store_failure());
        assert!(!ReadError::Content("bad".into()).is_store_failure());
    }

    #[test]
    fn a_chain_has_each_text_once() {
        let error = ReadError::Io(io::Error::other("broken"));
        assert_eq!(error.to_string(), "broken");
        assert!(error.source().is_none_or(|source| source.to_string() != "broken"));
    }
}
