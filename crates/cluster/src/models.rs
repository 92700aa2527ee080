//! The models of an executor.

use std::fmt;

use async_trait::async_trait;
use polylance_backend::BackendHandle;
use polylance_schema::{Contract, ErrorClass};

/// A model on the devices of this machine.
#[derive(Debug, Clone)]
pub struct SplitModel {
    /// Its devices.
    pub backend: BackendHandle,
    /// The contract of its vectors, from the files of this machine.
    pub contract: Contract,
}

/// Why a model cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFailure {
    /// The error and its causes.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Who can fix it. An error of the environment may be gone at the next attempt.
    pub class: ErrorClass,
}

impl fmt::Display for ModelFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ModelFailure {}

/// Opens the models that pipelines name.
#[async_trait]
pub trait Models: fmt::Debug + Send + Sync {
    /// The model of a pipeline for a run with this contract, on the devices of this machine. The same pipeline and
    /// contract give the same model, which stays open. Its own contract may differ.
    async fn open(&self, pipeline: &str, run: &Contract) -> Result<SplitModel, ModelFailure>;
}
