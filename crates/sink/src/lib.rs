//! Writing to Lance: data files, commits, the quarantine, annotation columns, indices and maintenance.
//!
//! The write operator turns encoded chunks into data files and closes a *window* after a number of rows or seconds,
//! always between two documents. The commit operator makes each window one Lance transaction that adds its rows and
//! deletes older rows of the same documents. So a reader sees a document as a whole, old or new, and a run that is
//! killed leaves the last committed version.

mod columns;
mod commit;
mod datafusion_error;
mod error;
mod index;
mod maintenance;
mod operator;
mod outbox;
mod plan;
mod projection;
mod quarantine;
mod table;
#[cfg(test)]
mod tests;
mod token_features;
mod write;

pub use columns::{Declared, FillTarget, LanceFillExec, TableRowsExec, declare_columns, missing_rows};
pub use commit::{CommitReport, FillReport, LanceCommitExec, data_files_exist, properties};
pub use error::{ColumnDifference, ContractMismatch, SinkError};
pub use index::{
    FullTextIndexOutcome, FullTextUpdate, IndexAction, IndexOutcome, IndexSpec, Staleness, merge_index, retrain_index,
    set_search_params, update_full_text_index, update_index,
};
pub use maintenance::{
    CleanupMode, CleanupReport, CompactionPlan, CompactionReport, DeletedDocuments, InputTypes, MAX_SMALL_FRAGMENTS,
    MaintenanceReport, ManifestScope, OnConflict, RepairReport, Retention, SourceManifest, cleanup, compact,
    delete_missing, maintain, plan_compaction, record_manifest, repair,
};
pub use outbox::{Outbox, remove_outdated_outboxes};
pub use plan::{plan_commit, quarantined_so_far};
pub use projection::{MapOutcome, compute_map};
pub use quarantine::{
    QuarantineFilter, QuarantinedRow, count_quarantined, drop_outdated, drop_quarantined, quarantine_version,
    quarantined_rows, quarantined_sources,
};
pub use table::{
    Lease, Table, TableKeysExec, TableMark, TableTarget, VersionFile, VersionFiles, distinct_texts, find_damage,
    lease_uri, quarantine_uri, version_files,
};
pub use token_features::{FeatureKey, FeatureTable, TokenFeatures};
pub use write::{LanceWriteExec, QUARANTINED_METRIC, WindowMerger, window_schema};
