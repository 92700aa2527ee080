//! Why a job could not be opened or did not end.

use datafusion::error::DataFusionError;
use polylance_dataflow::SourceError;
use polylance_sink::SinkError;

/// Why a job could not be opened or did not end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The table cannot be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A broken corpus must not look like success.
    #[error("{quarantined} of {read} rows went to the quarantine of {table}, and {limit}")]
    Quarantine {
        /// The table.
        table: String,
        /// Rows that went to the quarantine.
        quarantined: u64,
        /// Rows of the source.
        read: u64,
        /// What is allowed, and by which key.
        limit: String,
    },
    /// The plan failed; the error of ours inside is its root.
    #[error("{}", .0.find_root())]
    Plan(#[from] DataFusionError),
}
