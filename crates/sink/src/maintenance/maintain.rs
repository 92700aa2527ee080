//! The maintenance at the end of a run.

use polylance_schema::MaintenancePolicy;
use serde::Serialize;

use super::{
    cleanup::clean,
    compact::{Contention, compact},
    policy::{Mode, Retention, SMALL_FRAGMENTS},
};
use crate::{
    error::SinkError,
    table::{open, sidecar::quarantine_uri},
};

/// What an upkeep did for the table and its quarantine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Upkept {
    /// Fragments that were merged into others.
    pub fragments_merged: u64,
    /// Versions that were removed.
    pub versions_removed: u64,
    /// Files that were removed.
    pub files_removed: u64,
    /// Their bytes.
    pub bytes_removed: u64,
    /// The table's version, when it was looked at.
    #[serde(skip)]
    pub version: Option<u64>,
}

/// The upkeep at the end of a run: what is due, one attempt, of the table and of its quarantine.
///
/// # Errors
/// [`SinkError::Storage`] when the table cannot be read or written.
pub async fn upkeep(table_uri: &str, policy: &MaintenancePolicy) -> Result<Upkept, SinkError> {
    let mut done = Upkept::default();
    for uri in [table_uri.to_owned(), quarantine_uri(table_uri)] {
        if open::latest(&uri).await?.is_none() {
            continue;
        }
        if policy.compact {
            let compacted = compact(&uri, SMALL_FRAGMENTS, Contention::Leave).await?;
            done.fragments_merged += compacted.fragments_merged;
            done.version = done.version.or(Some(compacted.version));
        }
        if policy.cleanup {
            let cleaned = clean(&uri, &Retention::from(policy), Mode::Remove).await?;
            done.versions_removed += cleaned.versions_removed;
            done.files_removed += cleaned.files_removed;
            done.bytes_removed += cleaned.bytes_removed;
        }
    }
    Ok(done)
}
