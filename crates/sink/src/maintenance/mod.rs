//! Keeps a table fast and small: merges small fragments, removes old versions and files that no version names.
//!
//! Nothing here changes a row. Merging is one Lance transaction that conflicts with every commit that touches the
//! same fragments, so a writer and an upkeep, or two upkeeps, never undo each other: the later one begins anew or
//! leaves it. A file that no version names is either what a killed run left behind or what a running one has written
//! and not yet committed; only its age tells them apart, so it is never removed young.

mod cleanup;
mod compact;
mod delete_missing;
mod maintain;
mod orphaned_files;
pub(crate) mod policy;
mod repair;
mod source_manifest;

pub use cleanup::{Cleaned, clean};
pub use compact::{Compacted, Contention, PlannedCompaction, compact, plan_compaction};
pub use delete_missing::{RemovedDocuments, remove_documents};
pub use maintain::{Upkept, upkeep};
pub use policy::{Mode, Retention, SMALL_FRAGMENTS};
pub use repair::{Repaired, repair};
pub use source_manifest::{Finished, finish};
