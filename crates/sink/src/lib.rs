//! Writing to Lance: data files, commits, indices, quarantine, upkeep.
//!
//! The write operator turns encoded chunks into data files and closes a *window* after so many rows or
//! seconds, always between two documents. The commit operator makes each window one Lance transaction
//! that adds its rows and takes away older rows of the same documents, so that a reader sees a document
//! whole, old or new, and a run that is killed leaves the last committed version.

mod attempts;
mod beside;
mod columns;
mod commit;
mod datafusion_error;
mod documents;
mod effort;
mod error;
mod features;
mod finished;
mod identity;
mod index;
mod keys;
mod known_rows;
mod lease;
mod map;
mod outdated;
mod plan;
mod quarantine;
mod quarantine_rows;
mod removed;
mod report;
mod retrain;
mod storage;
mod store_clock;
mod synced;
mod table;
mod target;
#[cfg(test)]
mod tests;
mod transact;
mod upkeep;
mod window;
mod words;
mod write;

pub use columns::{Declared, FillTarget, LanceFillExec, TableRowsExec, declare_columns, missing_rows};
pub use commit::LanceCommitExec;
pub use effort::set_search_effort;
pub use error::{ColumnDifference, ContractMismatch, SinkError};
pub use features::{FeatureKey, FeatureTable, TokenFeatures};
pub use finished::{Finished, finish};
pub use identity::TableMark;
pub use index::{IndexAction, IndexOutcome, IndexSpec, merge_index, retrain_index, update_index};
pub use keys::TableKeysExec;
pub use lease::{Lease, lease_uri};
pub use map::{MapOutcome, draw_map};
pub use outdated::{drop_outdated, quarantine_version};
pub use plan::{plan_commit, quarantined};
pub use quarantine::quarantine_uri;
pub use quarantine_rows::{
    QuarantineFilter, QuarantinedRow, count_quarantined, drop_quarantined, quarantined_rows, quarantined_sources,
};
pub use removed::{RemovedDocuments, remove_documents};
pub use report::{CommitReport, FillReport};
pub use retrain::Retrain;
pub use table::Table;
pub use target::{TableTarget, properties};
pub use upkeep::{
    Cleaned, Compacted, Contention, Mode, PlannedCompaction, Repaired, Retention, SMALL_FRAGMENTS, Upkept, clean,
    compact, damage, plan_compaction, repair, upkeep,
};
pub use words::{Words, WordsOutcome, index_words};
pub use write::LanceWriteExec;
