//! What a run did.

use polylance_dataflow::SourceIds;
use polylance_schema::MaintenancePolicy;
use polylance_sink::{IndexOutcome, IndexSpec, Upkept, Words, index_words, remove_documents, update_index, upkeep};
use serde::Serialize;

use crate::EngineError;

/// What a run did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunSummary {
    /// The run, as in the column `run_id`.
    pub run_id: String,
    /// The table's address.
    pub table: String,
    /// The table's version after the run.
    pub version: u64,
    /// Rows of the source.
    pub rows_read: u64,
    /// Rows that the table had already.
    pub rows_skipped: u64,
    /// Documents written.
    pub rows_written: u64,
    /// Rows of the table that they became.
    pub chunks_written: u64,
    /// Rows that went to the quarantine.
    pub rows_quarantined: u64,
    /// Records that left the quarantine because their rows are good by now, or gone from the source.
    pub records_dropped: u64,
    /// Documents taken out of the table because the source no longer has them.
    pub documents_removed: u64,
    /// Why none was taken out although that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removal_skipped: Option<String>,
    /// Whether the run was told to stop before the source's end; index and upkeep are then left to the next.
    pub stopped: bool,
    /// Whether the source's files were not read, because they are those of a run that finished them before.
    pub source_unchanged: bool,
    /// Files that are those of a run that finished them before: of them the ids were read at most.
    pub files_unchanged: u64,
    /// What is to be known about the source's files: links that were passed over, a server that does not tell of changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_notes: Vec<String>,
    /// Bytes of the source's files that were read, as stored.
    pub bytes_read: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Ids encoded.
    pub tokens: u64,
    /// From the first row to the last commit and the index.
    pub seconds: f64,
    /// Ids a second.
    pub tokens_per_second: f64,
    /// The most memory that the process has had, in bytes, where the system says it.
    pub peak_memory: Option<u64>,
    /// The most ids that waited for the devices or were in work, of what was seen several times a second.
    pub peak_queue: u64,
    /// The vector index as it stands; nothing when the run was stopped.
    pub index: Option<IndexOutcome>,
    /// What was done for the table at the end; nothing when the run wrote nothing.
    pub upkeep: Upkept,
    /// Why the upkeep failed, when it did: the rows are committed all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upkeep_failure: Option<String>,
}

impl RunSummary {
    /// Takes out what the source no longer has. An id that could not be read may be of any document: then none goes.
    pub(super) async fn remove(&mut self, ids: &SourceIds) -> Result<(), EngineError> {
        let Some(mut ids) = ids.take() else {
            self.removal_skipped = Some("the source was not read to its end".to_owned());
            return Ok(());
        };
        if ids.without_id() > 0 {
            self.removal_skipped =
                Some(format!("{} rows or files of the source have no readable id", ids.without_id()));
            return Ok(());
        }
        let removed = remove_documents(&self.table, &self.run_id, |id| ids.contains(id)).await?;
        self.documents_removed = removed.documents;
        self.version = removed.version.unwrap_or(self.version);
        Ok(())
    }

    pub(super) async fn index(&mut self, spec: &IndexSpec) -> Result<(), EngineError> {
        let index = Box::pin(update_index(&self.table, spec)).await?;
        self.version = self.version.max(index.version);
        self.index = Some(index);
        // An index of words that somebody built by hand is kept up to date as well.
        let words = if spec.words { Words::Build } else { Words::Extend };
        if let Some(words) = Box::pin(index_words(&self.table, words)).await? {
            self.version = self.version.max(words.version);
        }
        Ok(())
    }

    /// When something was written. The rows are committed: a failure is told, and the run is done all the same.
    pub(super) async fn upkeep(&mut self, policy: &MaintenancePolicy) {
        if self.rows_written + self.rows_quarantined + self.documents_removed == 0 {
            return;
        }
        match Box::pin(upkeep(&self.table, policy)).await {
            Ok(kept) => {
                self.version = self.version.max(kept.version.unwrap_or_default());
                self.upkeep = kept;
            }
            Err(error) => self.upkeep_failure = Some(error.to_string()),
        }
    }
}

/// The most memory that this process has had, in bytes, as the kernel counts it.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}
