//! The manifest of unchanged files: the files of a source that a run need not read again.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use polylance_dataflow::{Coverage, RowSet, Source, SourceSpec};
use polylance_sink::{
    InputTypes, ManifestScope, QuarantineFilter, SourceManifest, Table, drop_outdated, quarantined_sources,
    record_manifest,
};

use super::summary::RunSummary;
use crate::EngineError;

/// The listing of a source for one pipeline.
#[derive(Debug)]
pub(super) struct SourceListing {
    /// The hash of the pipeline.
    pipeline: String,
    /// The hash of all files.
    hash: Option<String>,
    /// The listed files.
    source: Source,
    scope: ManifestScope,
    /// The time of the listing.
    listed: DateTime<Utc>,
    /// The types in which the source's SQL reads columns.
    input_types: Option<InputTypes>,
}

/// The files of which the table has all rows.
#[derive(Debug, Default)]
pub(super) struct UnchangedFiles {
    /// The rows of the source, if none of its files changed.
    pub(super) source_rows: Option<u64>,
    /// Hashes of files, possibly of other sources too.
    pub(super) hashes: HashSet<u128>,
    /// Number of files of this source among them.
    pub(super) files: usize,
}

impl SourceListing {
    pub(super) fn new(source: &Source, spec: &SourceSpec, listed: DateTime<Utc>, pipeline: String) -> Self {
        let record = |types| InputTypes { key: Source::input_types_key(spec), types };
        let input_types = source.input_types().map(record);
        let (hash, scope) = (source.fingerprint(listed), ManifestScope::Source);
        Self { pipeline, hash, source: source.clone(), scope, listed, input_types }
    }

    /// The listing, of which a run reads only this shard.
    pub(super) fn of_shard(self, shard: &Source) -> Self {
        Self { hash: None, source: shard.clone(), scope: ManifestScope::Shard, ..self }
    }

    /// The files that the manifest of the table has for this pipeline.
    pub(super) async fn unchanged_files(&self, table: &Table) -> Result<UnchangedFiles, EngineError> {
        let source_rows = match &self.hash {
            Some(hash) => table.recorded_rows(&self.pipeline, hash).await?,
            None => None,
        };
        let hashes = match source_rows {
            // No file is read.
            Some(_) => HashSet::new(),
            None => table.recorded_files(&self.pipeline).await?,
        };
        Ok(UnchangedFiles { source_rows, hashes, files: 0 })
    }
}

/// The rows of the source that a run reads: it can decide whether their records in the quarantine are outdated.
#[derive(Debug)]
pub(super) struct ExaminedRows {
    /// The quarantine's version when the run began.
    pub(super) quarantine: Option<u64>,
    pub(super) coverage: Coverage,
    /// Only these rows, in a replay.
    pub(super) only: Option<Arc<RowSet>>,
}

impl RunSummary {
    /// Drops quarantine records whose rows are valid by now, or gone from the source.
    pub(super) async fn drop_outdated(&mut self, examined: &ExaminedRows) -> Result<(), EngineError> {
        let Some(before) = examined.quarantine else { return Ok(()) };
        // Rows after the place where a file broke off were not read.
        let mut unread = RowSet::default();
        for record in quarantined_sources(&self.table, &QuarantineFilter::default()).await? {
            if record.run_id == self.run_id {
                unread.insert(&record.source, record.row, record.kind);
            }
        }
        let examines = |source: &str, row: u64| {
            examined.coverage.examines(source)
                && examined.only.as_ref().is_none_or(|only| only.contains(source, row))
                && !unread.contains(source, row)
        };
        self.records_dropped = drop_outdated(&self.table, &self.run_id, before, examines).await?;
        Ok(())
    }

    /// Records the files of which the table has all rows. Files with rows in the quarantine are read again by the next
    /// run.
    ///
    /// A shard adds its files, unless the quarantine lacks one of its records: another shard has dropped that, because
    /// it wrote a document with the same id, and it is not known which file the record was of.
    pub(super) async fn record_manifest(
        &mut self,
        SourceListing { pipeline, hash, source, scope, listed, input_types }: SourceListing,
        since: Option<u64>,
        mut own: BTreeSet<u64>,
    ) -> Result<(), EngineError> {
        if self.documents_removed > 0 {
            own.insert(self.version);
        }
        let records = quarantined_sources(&self.table, &QuarantineFilter::default()).await?;
        let own_records = records.iter().filter(|record| record.run_id == self.run_id).count() as u64;
        if scope == ManifestScope::Shard && own_records < self.rows_quarantined {
            return Ok(());
        }
        let quarantined: HashSet<&str> = records.iter().map(|record| record.source.as_str()).collect();
        let complete = self.rows_quarantined == 0 && self.removal_skipped.is_none();
        let hashes = source.fingerprints(listed).filter(|(file, _)| !quarantined.contains(file));
        let mut file_hashes: Vec<u128> = hashes.map(|(_, hash)| hash).collect();
        file_hashes.sort_unstable();
        let (source_hash, rows) = (hash.filter(|_| complete), self.rows_read);
        let manifest =
            SourceManifest { scope, pipeline, source_hash, file_hashes, rows, since, own_versions: own, input_types };
        self.version = record_manifest(&self.table, &manifest).await?.unwrap_or(self.version);
        Ok(())
    }
}
