//! Why a pool could not be opened.

use std::any::Any;

use polylance_encoder::ModelError;

/// A pool that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The model is the caller's to mend.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// `tokenizer.json` cannot be used.
    #[error("the tokenizer of {model} cannot be read: {message}")]
    Tokenizer {
        /// The model's name.
        model: String,
        /// The tokenizer library's own words.
        message: String,
    },
    /// A device that does not exist here, or is not spelled like one.
    #[error("device `{device}`: {message}")]
    Device {
        /// As it was configured.
        device: String,
        /// What is wrong.
        message: String,
    },
    /// The system gave no thread.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// What a library said when it panicked.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked").to_owned()
}
