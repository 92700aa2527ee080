//! Why a pool could not be opened.

use std::{any::Any, borrow::Cow};

use polylance_encoder::ModelError;
use polylance_schema::{ErrorClass, Explain};

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
    /// A device that is not spelled like one, does not exist here, or does not go with the others.
    #[error("device `{device}`: {message}")]
    Device {
        /// As it was configured.
        device: String,
        /// What is wrong.
        message: String,
    },
    /// A GPU that was named and cannot be used.
    #[error("device `{device}`: {message}")]
    Gpu {
        /// As it was configured.
        device: String,
        /// The driver's own words.
        message: String,
    },
    /// A GPU that failed while a model was loaded onto it.
    #[error("device `{device}` failed while the model was loaded")]
    Load {
        /// The device's name.
        device: String,
        /// What failed.
        source: Box<ModelError>,
    },
    /// The system gave no thread.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
}

impl Explain for PoolError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::Device { .. } => Some("devices are `auto`, `cpu`, `cpu:0` (a core), `cpu:0-3` (cores) and `cuda:0`"),
            Self::Gpu { .. } => Some(
                "`auto` takes the GPUs that can be used, or else the cores; `nvidia-smi` lists what the driver sees",
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

/// What a library said when it panicked.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked").to_owned()
}

/// An error and its causes on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_the_error_and_none_stands_twice() {
        let cause = std::io::Error::other("the bus is gone");
        let source = Box::new(ModelError::Io { path: "weights".into(), source: cause });
        let error = PoolError::Load { device: "cuda:0".to_owned(), source };
        let text = "device `cuda:0` failed while the model was loaded: weights: the bus is gone";
        assert_eq!(with_causes(&error), text);
    }
}
