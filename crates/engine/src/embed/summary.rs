//! The result of a run.

use polylance_dataflow::SourceIds;
use polylance_schema::{MaintenancePolicy, Shard};
use polylance_sink::{
    FullTextUpdate, IndexOutcome, IndexSpec, MaintenanceReport, delete_missing, maintain, update_full_text_index,
    update_index,
};
use serde::Serialize;

use crate::EngineError;

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunSummary {
    /// The run's id, as in the column `run_id`.
    pub run_id: String,
    /// The table's address.
    pub table: String,
    /// The table's version after the run.
    pub version: u64,
    /// Rows of the source that were read.
    pub rows_read: u64,
    /// Rows that the table had already, unchanged.
    pub rows_skipped: u64,
    /// Documents written.
    pub rows_written: u64,
    /// Chunks written: rows of the table.
    pub chunks_written: u64,
    /// Rows that went to the quarantine.
    pub rows_quarantined: u64,
    /// Records dropped from the quarantine because their rows are valid by now, or gone from the source.
    pub records_dropped: u64,
    /// Documents deleted from the table because the source no longer has them.
    pub documents_removed: u64,
    /// Why no document was deleted although `source.removed` is `delete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removal_skipped: Option<String>,
    /// The part of the source that the run embedded, such as `3/8`; index, maintenance and deletion are then left to a
    /// run over the whole source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// Whether the run was stopped before the source's end; index and maintenance are then left to the next run.
    pub stopped: bool,
    /// Whether no file was read, because none changed since an earlier run had all their rows.
    pub source_unchanged: bool,
    /// Files that did not change since an earlier run had all their rows: at most their ids were read.
    pub files_unchanged: u64,
    /// Remarks about the source's files: skipped links, a server that does not report changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_notes: Vec<String>,
    /// Bytes of the source's files that were read, as stored.
    pub bytes_read: u64,
    /// Bytes of all files; of a shard those of its files and of the ones before it, whose ids are read.
    pub bytes_total: u64,
    /// Tokens encoded.
    pub tokens: u64,
    /// From the first row to the last commit and the index.
    pub seconds: f64,
    /// Tokens per second.
    pub tokens_per_second: f64,
    /// The peak memory of the process in bytes, on systems that report it.
    pub peak_memory: Option<u64>,
    /// The maximum number of tokens queued or in progress, sampled several times per second.
    pub peak_queue: u64,
    /// The state of the vector index; absent if the run was stopped, or embedded a shard.
    pub index: Option<IndexOutcome>,
    /// The maintenance at the end; empty if the run wrote nothing.
    pub upkeep: MaintenanceReport,
    /// Why the maintenance failed, if it did; the rows are committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upkeep_failure: Option<String>,
}

impl RunSummary {
    /// Deletes documents that the source no longer has. An unreadable id may be that of any document: then none is
    /// deleted.
    pub(super) async fn delete_missing(&mut self, ids: &SourceIds) -> Result<(), EngineError> {
        let Some(mut ids) = ids.take() else {
            self.removal_skipped = Some("the source was not read to its end".to_owned());
            return Ok(());
        };
        if ids.without_id() > 0 {
            self.removal_skipped =
                Some(format!("{} rows or files of the source have no readable id", ids.without_id()));
            return Ok(());
        }
        let removed = delete_missing(&self.table, &self.run_id, |id| ids.contains(id)).await?;
        self.documents_removed = removed.documents;
        self.version = removed.version.unwrap_or(self.version);
        Ok(())
    }

    /// Updates the vector index and the full-text index.
    pub(super) async fn update_indices(&mut self, spec: &IndexSpec) -> Result<(), EngineError> {
        let index = Box::pin(update_index(&self.table, spec)).await?;
        self.version = self.version.max(index.version);
        self.index = Some(index);
        // A full-text index that was built by hand is updated too.
        let words = if spec.full_text { FullTextUpdate::Create } else { FullTextUpdate::Extend };
        if let Some(words) = Box::pin(update_full_text_index(&self.table, words)).await? {
            self.version = self.version.max(words.version);
        }
        Ok(())
    }

    /// Maintains the table, if the run wrote something. A failure is recorded and does not fail the run: the rows are
    /// committed.
    pub(super) async fn maintain(&mut self, policy: &MaintenancePolicy) {
        if self.rows_written + self.rows_quarantined + self.documents_removed == 0 {
            return;
        }
        match Box::pin(maintain(&self.table, policy)).await {
            Ok(done) => {
                self.version = self.version.max(done.version.unwrap_or_default());
                self.upkeep = done;
            }
            Err(error) => self.upkeep_failure = Some(crate::explain(&error).messages.join(": ")),
        }
    }
}

/// The peak memory of this process in bytes, as counted by the kernel.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}
