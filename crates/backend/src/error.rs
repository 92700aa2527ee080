//! The errors of backends.

use std::{error::Error, sync::Arc};

/// An error of a backend, by what a caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// No device can compute the input: quarantine the row. This includes an input that alone exceeds a device's memory, one
    /// that crashes a device's library every time, and one with which a device makes no progress. Of several inputs at
    /// least one is refused: retry with parts to find it.
    #[error("input refused: {0}")]
    Input(String),
    /// The device ran out of memory: split the batch and retry. A pool does this itself.
    #[error("device {device} is out of memory")]
    OutOfMemory {
        /// The device's name.
        device: String,
    },
    /// The device failed: stop the run. A pool restarts a device whose library panics or makes no progress, and gives its
    /// work to other devices when that does not help: a caller receives this error when no device is left.
    #[error("device {device} failed: {message}")]
    Device {
        /// The device's name.
        device: String,
        /// The device library's message.
        message: String,
    },
    /// The model, which is loaded when it is first needed, could not be loaded.
    #[error(transparent)]
    Load(Arc<dyn Error + Send + Sync>),
    /// The pool has been shut down: stop.
    #[error("the device pool is closed")]
    Closed,
}

/// A result whose error is a [`BackendError`].
pub type Result<T> = std::result::Result<T, BackendError>;
