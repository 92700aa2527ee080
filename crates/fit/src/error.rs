//! The errors of fitting, by what a caller can do about them.

use polylance_encoder::ModelError;
use polylance_schema::{ErrorClass, Explain};

/// A result whose error is a [`FitError`].
pub type Result<T> = std::result::Result<T, FitError>;

/// A head could not be fitted or written.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// The labelled rows do not make a training set: use others.
    #[error("{0}")]
    Data(String),
    /// The arithmetic failed.
    #[error("training failed")]
    Device(#[from] candle_core::Error),
    /// The backbone cannot be read, or the folder cannot be written.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl Explain for FitError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Data(_) => ErrorClass::User,
            Self::Model(inner) => inner.class(),
            Self::Device(_) => ErrorClass::Environment,
        }
    }
}
