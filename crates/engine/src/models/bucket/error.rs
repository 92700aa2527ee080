//! The errors of models in object storage.

use std::{borrow::Cow, io, path::PathBuf};

use polylance_dataflow::store_hint;
use polylance_encoder::ModelError;
use polylance_schema::{ErrorClass, Explain};

/// A model in object storage that cannot be used. `model` is its address without a password.
#[derive(Debug, thiserror::Error)]
pub enum BucketModelError {
    /// The address is invalid, or its store cannot be opened.
    #[error("the model {model} cannot be opened: {message}")]
    Address {
        /// The model.
        model: String,
        /// The reason.
        message: String,
    },
    /// There is no model at the address.
    #[error("no model at {model}: {reason}")]
    NoModel {
        /// The model.
        model: String,
        /// What is missing.
        reason: String,
    },
    /// The store refuses access, or is not reached.
    #[error("the model {model} cannot be read from its store")]
    Store {
        /// The model.
        model: String,
        /// Why.
        source: object_store::Error,
    },
    /// A file was replaced or removed while the model was fetched.
    #[error("{model}: {file} changed while it was fetched")]
    Changed {
        /// The model.
        model: String,
        /// The file, relative to the model.
        file: String,
    },
    /// The store returned another number of bytes than its listing has.
    #[error("{model}: the store returned {found} of {expected} bytes of {file}")]
    Incomplete {
        /// The model.
        model: String,
        /// The file, relative to the model.
        file: String,
        /// The number of bytes in the listing.
        expected: u64,
        /// The number of bytes that came.
        found: u64,
    },
    /// There is no folder for the cache.
    #[error("there is no folder to keep the model {model} in: neither HOME nor XDG_CACHE_HOME is set")]
    NoCache {
        /// The model.
        model: String,
    },
    /// The cache cannot be read or written.
    #[error("the cache of the model {model} cannot be used: {}", path.display())]
    Cache {
        /// The model.
        model: String,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The model was fetched, and its files cannot be used.
    #[error("the model {model} cannot be used")]
    Files {
        /// The model.
        model: String,
        /// Why.
        source: Box<ModelError>,
    },
}

impl Explain for BucketModelError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::Address { .. } => {
                "an address is s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or az://CONTAINER/FOLDER; keys, profiles and \
                 endpoints come from the environment, as for sources and tables"
            }
            Self::NoModel { .. } => {
                "an address is that of a folder with config.json, tokenizer.json and weights, as save_pretrained writes \
                 them, or of a .gguf file with tokenizer.json next to it"
            }
            Self::Store { model, source } => store_hint(model, source),
            Self::Changed { .. } => "let its writer finish, then run again: the model is fetched from the beginning",
            Self::Incomplete { .. } => "run again: the model is fetched from the beginning",
            Self::NoCache { .. } => "set XDG_CACHE_HOME to a folder with space for the model",
            Self::Cache { .. } => "make room there, or name another folder with XDG_CACHE_HOME; then run again",
            Self::Files { source, .. } => return source.hint(),
        };
        Some(Cow::Borrowed(hint))
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Address { .. } | Self::NoModel { .. } => ErrorClass::User,
            Self::Files { source, .. } => source.class(),
            _ => ErrorClass::Environment,
        }
    }
}
