//! The error of opening a pool, and the messages of other errors.

use std::{any::Any, borrow::Cow};

use polylance_backend::BackendError;
use polylance_encoder::ModelError;
use polylance_schema::{ErrorClass, Explain};

/// A pool that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// `tokenizer.json` cannot be used.
    #[error("the tokenizer of {model} cannot be read: {message}")]
    Tokenizer {
        /// The model's name.
        model: String,
        /// The tokenizer library's message.
        message: String,
    },
    /// A device name that is invalid, does not exist on this machine, or cannot be combined with the others.
    #[error("device `{device}`: {message}")]
    Device {
        /// The name, as configured.
        device: String,
        /// The reason.
        message: String,
    },
    /// A named GPU that cannot be used.
    #[error("device `{device}`: {message}")]
    Gpu {
        /// The name, as configured.
        device: String,
        /// The driver's message.
        message: String,
    },
    /// A GPU that failed while a model was loaded onto it.
    #[error("device `{device}` failed while the model was loaded")]
    Load {
        /// The device's name.
        device: String,
        /// The cause.
        source: Box<ModelError>,
    },
    /// The system could not start a thread.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
}

impl Explain for PoolError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::Device { .. } => Some("devices are `auto`, `cpu`, `cpu:0` (a core), `cpu:0-3` (cores) and `cuda:0`"),
            Self::Gpu { .. } => Some(
                "`auto` selects the GPUs that can be used, or else the cores; `nvidia-smi` lists the driver's GPUs",
            ),
            Self::Model(inner) => return inner.hint(),
            Self::Load { .. } | Self::Tokenizer { .. } | Self::Thread(_) => None,
        };
        hint.map(Cow::Borrowed)
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Device { .. } | Self::Gpu { .. } => ErrorClass::User,
            Self::Model(inner) => inner.class(),
            Self::Load { .. } | Self::Tokenizer { .. } | Self::Thread(_) => ErrorClass::Environment,
        }
    }
}

/// The message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked").to_owned()
}

/// The message of a refused input without the prefix of [`BackendError::Input`].
pub(crate) fn refusal_message(error: BackendError) -> String {
    match error {
        BackendError::Input(message) => message,
        error => error.to_string(),
    }
}

/// An error and its causes in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_the_error_without_repetition() {
        let cause = std::io::Error::other("the bus is gone");
        let source = Box::new(ModelError::Io { path: "weights".into(), source: cause });
        let error = PoolError::Load { device: "cuda:0".to_owned(), source };
        let text = "device `cuda:0` failed while the model was loaded: weights: the bus is gone";
        assert_eq!(with_causes(&error), text);
    }
}
