//! Keeps a table fast and small: merges small fragments, removes old versions and files that no version names.
//!
//! Nothing here changes a row. Merging is one Lance transaction that conflicts with every commit that touches the
//! same fragments, so a writer and an upkeep, or two upkeeps, never undo each other: the later one begins anew or
//! leaves it. A file that no version names is either what a killed run left behind or what a running one has written
//! and not yet committed; only its age tells them apart, so it is never removed young.

mod clean;
mod compact;
mod repair;

use polylance_schema::MaintenancePolicy;
use serde::Serialize;

pub use clean::{Cleaned, Mode, Retention, clean};
pub use compact::{Compacted, Contention, PlannedCompaction, compact, plan_compaction};
pub use repair::{Repaired, damage, repair};

use crate::{SinkError, quarantine_uri, storage};

/// Small fragments that a run leaves alone.
pub const SMALL_FRAGMENTS: usize = 16;

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
        if storage::open(&uri).await?.is_none() {
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
