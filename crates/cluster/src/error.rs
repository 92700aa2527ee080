//! The errors of a cluster, by what a caller can do about them.

use std::{borrow::Cow, net::SocketAddr, time::Duration};

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use polylance_dataflow::SourceError;
use polylance_schema::{ErrorClass, Explain};
use polylance_sink::SinkError;

/// A run on a cluster that could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The source or the table cannot be reached from other machines.
    #[error("{uri} cannot be used by a cluster: {reason}")]
    NotShared {
        /// The source or the table.
        uri: String,
        /// Why.
        reason: String,
    },
    /// The address of the scheduler has another form.
    #[error("the address of a scheduler is http://HOST:PORT, found {found:?}")]
    Address {
        /// The address.
        found: String,
    },
    /// The scheduler does not answer, or not as one.
    #[error("the scheduler at {url} cannot be reached: {message}")]
    Scheduler {
        /// Its address.
        url: String,
        /// Why.
        message: String,
    },
    /// A scheduler or an executor cannot listen for the others.
    #[error("cannot listen on {address}: {message}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        message: String,
    },
    /// The scheduler has given up this executor.
    #[error("the scheduler at {url} ended this executor, which was silent for too long")]
    Ended {
        /// Its address.
        url: String,
    },
    /// No executor was registered for too long.
    #[error("the cluster has had no executor for {} s", waited.as_secs())]
    NoExecutors {
        /// How long.
        waited: Duration,
    },
    /// A split cannot be embedded.
    #[error("split {split} of the source failed on {host}: {message}")]
    Split {
        /// Its position.
        split: usize,
        /// The machine of the last attempt.
        host: String,
        /// The error there.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// An executor has another model, or other settings: its vectors must not be mixed with those of the others.
    #[error("the executor on {host} was refused: {message}")]
    Executor {
        /// The machine.
        host: String,
        /// The difference.
        message: String,
    },
    /// The results of a split, or its description, are damaged, or another version wrote them.
    #[error("{what} cannot be read: {message}")]
    Format {
        /// What cannot be read.
        what: String,
        /// Why.
        message: String,
    },
    /// The source cannot be cut or read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The outbox cannot be used.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl ClusterError {
    /// The error of a result that cannot be read.
    pub(crate) fn format(what: impl Into<String>, error: impl std::error::Error) -> Self {
        Self::Format { what: what.into(), message: error.to_string() }
    }
}

impl From<ClusterError> for DataFusionError {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Source(error) => error.into(),
            ClusterError::Sink(error) => error.into(),
            error => Self::External(Box::new(error)),
        }
    }
}

impl From<ArrowError> for ClusterError {
    fn from(error: ArrowError) -> Self {
        Self::format("a window", error)
    }
}

impl Explain for ClusterError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::Source(error) => return error.hint(),
            Self::Sink(error) => return error.hint(),
            Self::Split { hint, .. } => return hint.as_deref().map(Cow::Borrowed),
            Self::NotShared { .. } => {
                "move it to object storage, or set `shared_files = true` in [cluster] if all machines mount the same \
                 folder at the same path"
            }
            Self::Address { .. } => "as in --cluster http://scheduler:50050",
            Self::Scheduler { .. } => {
                "start one with `polylance scheduler`, and look at the network between it and this machine; what is \
                 committed stays, and another run continues from there"
            }
            Self::Listen { .. } => {
                "another process may listen there: name another port with --port of an executor, or with --listen of a \
                 scheduler"
            }
            Self::Ended { .. } => {
                "start it again, and look at the network between it and the scheduler, and at the load of this machine"
            }
            Self::NoExecutors { .. } => {
                "start some with `polylance executor --scheduler HOST:PORT`; what is committed stays, and another run \
                 continues from there"
            }
            Self::Executor { .. } => {
                "give all executors the same version of polylance and the same files of the model, as `model.id` names \
                 them"
            }
            Self::Format { .. } => "use the same version of polylance on all machines",
        };
        Some(Cow::Borrowed(hint))
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Source(error) => error.class(),
            Self::Sink(error) => error.class(),
            Self::NotShared { .. } | Self::Address { .. } | Self::Executor { .. } => ErrorClass::User,
            _ => ErrorClass::Environment,
        }
    }
}
