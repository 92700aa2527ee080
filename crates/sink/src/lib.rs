//! Writing to Lance: data files, commits, indices, quarantine, upkeep.
//!
//! The write operator turns encoded chunks into data files and closes a *window* after so many rows or
//! seconds, always between two documents. The commit operator makes each window one Lance transaction
//! that adds its rows and takes away older rows of the same documents, so that a reader sees a document
//! whole, old or new, and a run that is killed leaves the last committed version.

mod columns;
mod commit;
mod datafusion_error;
mod error;
mod index;
mod maintenance;
mod plan;
mod projection;
mod quarantine;
mod table;
#[cfg(test)]
mod tests;
mod token_features;
mod write;

pub use columns::{Declared, FillTarget, LanceFillExec, TableRowsExec, declare_columns, missing_rows};
pub use commit::{CommitReport, FillReport, LanceCommitExec, properties};
pub use error::{ColumnDifference, ContractMismatch, SinkError};
pub use index::{
    IndexAction, IndexOutcome, IndexSpec, Retrain, Words, WordsOutcome, index_words, merge_index, retrain_index,
    set_search_effort, update_index,
};
pub use maintenance::{
    Cleaned, Compacted, Contention, Finished, Mode, PlannedCompaction, RemovedDocuments, Repaired, Retention,
    SMALL_FRAGMENTS, Upkept, clean, compact, finish, plan_compaction, remove_documents, repair, upkeep,
};
pub use plan::{plan_commit, quarantined};
pub use projection::{MapOutcome, draw_map};
pub use quarantine::{
    QuarantineFilter, QuarantinedRow, count_quarantined, drop_outdated, drop_quarantined, quarantine_version,
    quarantined_rows, quarantined_sources,
};
pub use table::{Lease, Table, TableKeysExec, TableMark, TableTarget, damage, lease_uri, quarantine_uri};
pub use token_features::{FeatureKey, FeatureTable, TokenFeatures};
pub use write::LanceWriteExec;
