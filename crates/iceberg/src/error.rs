//! Errors of the crate `iceberg`, without the text of their causes in their own.

use std::{error::Error, fmt, iter::successors, sync::Arc};

/// Why a table or a data file cannot be read.
#[derive(Debug)]
pub struct IcebergError(iceberg::Error);

impl IcebergError {
    /// The error and those of the same library that caused it.
    fn layers(&self) -> impl Iterator<Item = &iceberg::Error> {
        successors(Some(&self.0), |&error| {
            let cause = error.source()?;
            // That of a cache is shared.
            cause.downcast_ref().or_else(|| cause.downcast_ref().map(Arc::as_ref))
        })
    }
}

impl From<iceberg::Error> for IcebergError {
    fn from(error: iceberg::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for IcebergError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages: Vec<_> = self.layers().map(iceberg::Error::message).collect();
        f.write_str(&messages.join(": "))
    }
}

impl Error for IcebergError {
    /// The first error of another library, such as that of a store.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.layers().last()?.source()
    }
}

#[cfg(test)]
mod tests {
    use iceberg::ErrorKind;

    use super::*;

    #[test]
    fn an_error_has_its_own_messages_and_the_store_as_its_cause() {
        let missing = object_store::Error::NotFound { path: "a.avro".into(), source: "404".into() };
        let inner = iceberg::Error::new(ErrorKind::Unexpected, "a.avro cannot be read").with_source(missing);
        let outer = iceberg::Error::new(ErrorKind::DataInvalid, "no list of manifests").with_source(Arc::new(inner));
        let error = IcebergError::from(outer);
        assert_eq!(error.to_string(), "no list of manifests: a.avro cannot be read");
        assert!(matches!(error.source().unwrap().downcast_ref(), Some(object_store::Error::NotFound { .. })));
        assert!(IcebergError::from(iceberg::Error::new(ErrorKind::Unexpected, "alone")).source().is_none());
    }
}
