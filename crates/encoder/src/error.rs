//! The errors of models, by what a caller can do about them.

use std::{borrow::Cow, error::Error, io, path::PathBuf};

use polylance_cuda::CudaError;
use polylance_schema::{ErrorClass, Explain, UnknownWord};

/// A result whose error is a [`ModelError`].
pub type Result<T> = std::result::Result<T, ModelError>;

/// An error of a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No such model: choose another name or path.
    #[error("model {model:?} not found: {reason}")]
    NotFound {
        /// The model as it was requested.
        model: String,
        /// Where it was looked for.
        reason: String,
    },
    /// A file of the model is not there: complete the folder.
    #[error("{}: missing {missing}", folder.display())]
    MissingFile {
        /// The model's folder.
        folder: PathBuf,
        /// The file, or the files one of which must be there.
        missing: String,
    },
    /// The hub was not reached, or refused the request: check the network, the name and the token.
    #[error("model {model:?} could not be fetched from {endpoint}: {message}")]
    Hub {
        /// The model's id.
        model: String,
        /// The hub's address.
        endpoint: String,
        /// The request, and the response.
        message: String,
    },
    /// A configuration file is invalid: correct it.
    #[error("{}: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, what was expected, what was found.
        message: String,
    },
    /// The model is of a kind that this encoder does not compute: choose another model.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// The part of the model.
        what: String,
        /// The supported alternative.
        reason: String,
    },
    /// A tensor that the model needs is not in its files: the checkpoint belongs to another model.
    #[error("{}: missing tensor {name:?} ({others} others are missing too)", path.display())]
    MissingTensor {
        /// The first missing tensor, by the expected name.
        name: String,
        /// How many more are missing.
        others: usize,
        /// The weight file, or the first of them.
        path: PathBuf,
    },
    /// A tensor's shape does not fit the configuration: `config.json` and weights do not belong together.
    #[error("{}: tensor {name:?} has shape {found:?}, expected {expected:?} by the configuration", path.display())]
    WrongShape {
        /// The tensor.
        name: String,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
        /// The weight file.
        path: PathBuf,
    },
    /// A weight file is truncated or malformed: fetch it again.
    #[error("{}: damaged weight file: {message}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        message: String,
    },
    /// An option does not fit the model or the device: change the option.
    #[error("{0}")]
    Option(String),
    /// A sequence cannot be computed: leave it out.
    #[error("sequence {sequence}: {message}")]
    Input {
        /// The sequence's position in the batch.
        sequence: usize,
        /// The reason.
        message: String,
    },
    /// The device ran out of memory: split the batch.
    #[error("the device is out of memory")]
    OutOfMemory(#[source] Box<CudaError>),
    /// The model, even with streamed layers, and a batch do not fit into the device's free memory: compute in fewer bits,
    /// in smaller batches, or on another device.
    #[error(
        "{device} has {} free; the model takes {} in {dtype}{}, a batch of {batch_tokens} tokens {}: {advice}",
        gib(*free), gib(*weights), if_streamed(*weights, *streamed), gib(*batch)
    )]
    DeviceMemory {
        /// The device.
        device: String,
        /// Its free memory in bytes.
        free: u64,
        /// The arithmetic.
        dtype: String,
        /// Bytes of the weights.
        weights: u64,
        /// Bytes of two layers and of everything that is always on the device: the same number for a model of at most two
        /// layers, which is not streamed.
        streamed: u64,
        /// Tokens in a batch.
        batch_tokens: usize,
        /// Bytes that such a batch takes.
        batch: u64,
        /// What to change.
        advice: String,
    },
    /// The memory limit of a model is too small to stream its layers: raise it.
    #[error(
        "the model may take {} of memory, and in {dtype} it takes {}, or at least {} if its layers are streamed",
        size(*limit), size(*resident), size(*streamed)
    )]
    MemoryLimit {
        /// The limit in bytes.
        limit: u64,
        /// The arithmetic.
        dtype: String,
        /// Bytes of the whole model in memory.
        resident: u64,
        /// Bytes of two layers and of everything that is always in memory.
        streamed: u64,
    },
    /// A device does not hold the whole model, and its layers take more of the host's memory than they may: raise the
    /// limit, or use another device.
    #[error(
        "{device} does not hold the whole model, so its layers stay in the host's memory, where they take {} in \
         {dtype} and may take {}",
        size(*layers), size(*limit)
    )]
    HostMemory {
        /// The device.
        device: String,
        /// The limit in bytes: the given one, or three quarters of the available memory.
        limit: u64,
        /// The arithmetic.
        dtype: String,
        /// Bytes of all layers.
        layers: u64,
    },
    /// The device failed.
    #[error("computation failed: {0}")]
    Device(#[source] Box<dyn Error + Send + Sync>),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl ModelError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// The error of a part of a batch as one of the batch, which has `count` sequences before the part.
    pub(crate) fn after_sequences(self, count: usize) -> Self {
        match self {
            Self::Input { sequence, message } => Self::Input { sequence: sequence + count, message },
            error => error,
        }
    }

    pub(crate) fn config(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::Config { path: path.into(), message: message.into() }
    }

    pub(crate) fn damaged(path: impl Into<PathBuf>, message: impl ToString) -> Self {
        Self::Damaged { path: path.into(), message: message.to_string() }
    }

    pub(crate) fn unsupported(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), reason: reason.into() }
    }
}

impl From<candle_core::Error> for ModelError {
    fn from(error: candle_core::Error) -> Self {
        Self::Device(Box::new(error))
    }
}

impl From<CudaError> for ModelError {
    fn from(error: CudaError) -> Self {
        if error.is_out_of_memory() { Self::OutOfMemory(Box::new(error)) } else { Self::Device(Box::new(error)) }
    }
}

/// Bytes in GiB, for messages.
fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// The bytes of a model with streamed layers, unless they are those of the whole model.
fn if_streamed(weights: u64, streamed: u64) -> String {
    if streamed == weights { String::new() } else { format!(" ({} if its layers are streamed)", gib(streamed)) }
}

/// A size that is at least as large, for messages: in whole MiB, or in bytes below one.
pub(crate) fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes < MIB { format!("{bytes} B") } else { format!("{} MiB", bytes.div_ceil(MIB)) }
}

impl From<UnknownWord> for ModelError {
    fn from(error: UnknownWord) -> Self {
        Self::Option(error.to_string())
    }
}

impl Explain for ModelError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        if let Self::MemoryLimit { streamed, .. } = self {
            let hint = format!("set model.memory (--model-memory) to \"{}\" or more, or leave it out", size(*streamed));
            return Some(hint.into());
        }
        let hint = match self {
            Self::HostMemory { .. } => Some(
                "raise model.memory (--model-memory) if the host has the memory, free memory on the device, or name \
                 another or more of them in model.devices",
            ),
            Self::NotFound { .. } => Some(
                "a model is `builtin:multilingual-e5-small`, a folder or a .gguf file, also at s3://, gs:// or az://, or \
                 a name on the hub",
            ),
            Self::Hub { .. } => Some(
                "`builtin:multilingual-e5-small` needs no network; HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured",
            ),
            Self::MissingFile { .. } => Some(
                "a model's folder has config.json, tokenizer.json (the fast tokenizer's) and weights, as save_pretrained \
                 writes them",
            ),
            Self::Damaged { .. } => Some("fetch the file again"),
            Self::WrongShape { .. } | Self::MissingTensor { .. } => {
                Some("config.json and the weights are not of one model: fetch the folder again")
            }
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. }
            | Self::MissingFile { .. }
            | Self::Config { .. }
            | Self::Unsupported { .. }
            | Self::MemoryLimit { .. }
            | Self::HostMemory { .. }
            | Self::Option(_) => ErrorClass::User,
            _ => ErrorClass::Environment,
        }
    }
}
