//! Keeps a table fast and small: merges small fragments, removes old versions, orphaned files and documents that left
//! the source, and records the files that a run has finished.
//!
//! Compaction and cleanup change no row. A merge is one Lance transaction that conflicts with every commit that touches
//! the same fragments, so a writer and a compaction, or two compactions, never undo each other: the later one retries
//! or gives up. An orphaned file was left by a killed run, or written by a running one that has not committed it yet;
//! only its age tells the two apart, so a young file is never removed.

mod cleanup;
mod compact;
mod delete_missing;
mod maintain;
mod orphaned_files;
pub(crate) mod policy;
mod repair;
mod source_manifest;

pub use cleanup::{CleanupReport, cleanup};
pub use compact::{CompactionPlan, CompactionReport, OnConflict, compact, plan_compaction};
pub use delete_missing::{DeletedDocuments, delete_missing};
pub use maintain::{MaintenanceReport, maintain};
pub use policy::{CleanupMode, MAX_SMALL_FRAGMENTS, Retention};
pub use repair::{RepairReport, repair};
pub use source_manifest::{InputTypes, ManifestScope, SourceManifest, record_manifest};
