//! The errors of jobs.

use std::{borrow::Cow, error::Error, io};

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use polylance_backend::BackendError;
use polylance_cluster::ClusterError;
use polylance_config::{ConfigError, TaskError};
use polylance_dataflow::SourceError;
use polylance_encoder::ModelError;
use polylance_fit::FitError;
use polylance_hub::HubError;
use polylance_schema::{ErrorClass, Explain, UnknownWord};
use polylance_search::SearchError;
use polylance_sink::SinkError;
use polylance_worker::PoolError;
use tokio::task::JoinError;

use crate::models::BucketModelError;

/// The error of a job that could not be opened or run to its end.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The pipeline is invalid.
    #[error(transparent)]
    Config(Box<ConfigError>),
    /// An option of a task is invalid.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Settings that are valid by themselves contradict each other, the model or the table.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The table cannot be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The table cannot be searched.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The hub does not take a table.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A model's files cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A model in object storage cannot be used.
    #[error(transparent)]
    Bucket(#[from] BucketModelError),
    /// A model cannot be opened on its devices.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The cluster cannot embed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A head cannot be trained.
    #[error(transparent)]
    Fit(Box<FitError>),
    /// Too many rows went to the quarantine: a broken corpus must not look like success.
    #[error("{quarantined} of {read} rows went to the quarantine of {table}, and {limit}")]
    Quarantine {
        /// The table.
        table: String,
        /// Rows that went to the quarantine.
        quarantined: u64,
        /// Rows of the source.
        read: u64,
        /// The limit, with its key.
        limit: String,
    },
    /// The plan failed. Its root is the error of the operator.
    #[error("{}", .0.find_root())]
    Plan(#[from] DataFusionError),
    /// A file of this machine cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The values of a column do not have its type.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// A thread panicked or was cancelled.
    #[error(transparent)]
    Thread(#[from] JoinError),
}

impl EngineError {
    /// The error that this one wraps, for code that matches errors by type.
    pub fn inner(&self) -> Option<&(dyn Error + 'static)> {
        Some(match self {
            Self::Config(inner) => inner.as_ref(),
            Self::Task(inner) => inner,
            Self::Usage(inner) => inner,
            Self::Source(inner) => inner,
            Self::Sink(inner) => inner,
            Self::Search(inner) => inner,
            Self::Hub(inner) => inner,
            Self::Model(inner) => inner,
            Self::Bucket(inner) => inner,
            Self::Pool(inner) => inner,
            Self::Backend(inner) => inner,
            Self::Cluster(inner) => inner,
            Self::Fit(inner) => inner.as_ref(),
            Self::Plan(inner) => inner,
            Self::Arrow(inner) => inner,
            Self::Thread(inner) => inner,
            Self::Quarantine { .. } | Self::File { .. } => return None,
        })
    }
}

// These two are large, and every result is as large as its largest error.
impl From<ConfigError> for EngineError {
    fn from(error: ConfigError) -> Self {
        Self::Config(Box::new(error))
    }
}

impl From<FitError> for EngineError {
    fn from(error: FitError) -> Self {
        Self::Fit(Box::new(error))
    }
}

impl From<UnknownWord> for EngineError {
    fn from(error: UnknownWord) -> Self {
        Self::Model(error.into())
    }
}

/// Settings that are valid by themselves and contradict each other.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct UsageError {
    message: String,
    hint: Option<String>,
}

impl UsageError {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl Explain for UsageError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        self.hint.as_deref().map(Cow::Borrowed)
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::User
    }
}

impl EngineError {
    /// The wrapped error that has a hint and a class.
    fn explained(&self) -> Option<&dyn Explain> {
        Some(match self {
            Self::Config(inner) => inner.as_ref(),
            Self::Usage(inner) => inner,
            Self::Source(inner) => inner,
            Self::Sink(inner) => inner,
            Self::Search(inner) => inner,
            Self::Hub(inner) => inner,
            Self::Model(inner) => inner,
            Self::Bucket(inner) => inner,
            Self::Pool(inner) => inner,
            Self::Fit(inner) => inner.as_ref(),
            _ => return None,
        })
    }
}

impl Explain for EngineError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Quarantine { table, .. } => Some(Cow::Owned(format!(
                "the valid rows are committed; `polylance quarantine list --table {table}` lists the others"
            ))),
            _ => self.explained()?.hint(),
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Task(_) => ErrorClass::User,
            _ => self.explained().map_or(ErrorClass::Environment, Explain::class),
        }
    }
}
