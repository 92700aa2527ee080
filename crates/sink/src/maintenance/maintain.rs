//! The maintenance at the end of a run.

use polylance_schema::MaintenancePolicy;
use serde::Serialize;

use super::{
    cleanup::cleanup,
    compact::{OnConflict, compact},
    policy::{CleanupMode, MAX_SMALL_FRAGMENTS, Retention},
};
use crate::{
    error::SinkError,
    table::{open, sidecar::quarantine_uri},
};

/// What the maintenance of a table and its quarantine did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MaintenanceReport {
    /// Fragments merged into others.
    pub fragments_merged: u64,
    /// Versions removed.
    pub versions_removed: u64,
    /// Files removed.
    pub files_removed: u64,
    /// Their bytes.
    pub bytes_removed: u64,
    /// The table's version, when the table was opened.
    #[serde(skip)]
    pub version: Option<u64>,
}

/// Does the maintenance that is due at the end of a run, of the table and of its quarantine, in one attempt.
///
/// # Errors
/// [`SinkError::Storage`] when the table cannot be read or written.
pub async fn maintain(table_uri: &str, policy: &MaintenancePolicy) -> Result<MaintenanceReport, SinkError> {
    let mut done = MaintenanceReport::default();
    for uri in [table_uri.to_owned(), quarantine_uri(table_uri)] {
        if open::latest(&uri).await?.is_none() {
            continue;
        }
        if policy.compact {
            let compacted = compact(&uri, MAX_SMALL_FRAGMENTS, OnConflict::GiveUp).await?;
            done.fragments_merged += compacted.fragments_merged;
            done.version = done.version.or(Some(compacted.version));
        }
        if policy.cleanup {
            let cleaned = cleanup(&uri, &Retention::from(policy), CleanupMode::Remove).await?;
            done.versions_removed += cleaned.versions_removed;
            done.files_removed += cleaned.files_removed;
            done.bytes_removed += cleaned.bytes_removed;
        }
    }
    Ok(done)
}
