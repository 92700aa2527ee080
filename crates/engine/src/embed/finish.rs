//! Which files of a source a run has finished, and which ones need not be read again.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use polylance_dataflow::{Coverage, RowSet, Source};
use polylance_sink::{Finished, QuarantineFilter, Table, drop_outdated, finish, quarantined_sources};

use super::RunSummary;
use crate::EngineError;

/// The files of a source as they were listed.
#[derive(Debug)]
pub(super) struct Finish {
    pipeline: String,
    /// A hash of all files.
    hash: Option<String>,
    /// The files, and when they were listed.
    source: Source,
    listed: DateTime<Utc>,
}

/// What the table is known to have of the source.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// All of it, and how many rows that are.
    pub(super) rows: Option<u64>,
    /// Hashes of files, maybe of other sources too.
    pub(super) hashes: HashSet<u128>,
    /// How many of the source's files these are.
    pub(super) files: usize,
}

impl Finish {
    pub(super) fn of(source: &Source, listed: DateTime<Utc>, pipeline: String) -> Self {
        Self { pipeline, hash: source.fingerprint(listed), source: source.clone(), listed }
    }

    pub(super) async fn known(&self, table: &Table) -> Result<Known, EngineError> {
        let rows = match &self.hash {
            Some(hash) => table.finished(&self.pipeline, hash).await?,
            None => None,
        };
        let hashes = match rows {
            // Nothing is read.
            Some(_) => HashSet::new(),
            None => table.finished_files(&self.pipeline).await?,
        };
        Ok(Known { rows, hashes, files: 0 })
    }
}

/// Which rows of the source the run has examined, and so can tell whether a record in the quarantine is outdated.
#[derive(Debug)]
pub(super) struct Examined {
    /// The quarantine's version when the run began.
    pub(super) quarantine: Option<u64>,
    pub(super) coverage: Coverage,
    /// Only these rows, in a replay.
    pub(super) only: Option<Arc<RowSet>>,
}

impl RunSummary {
    /// Takes records out of the quarantine whose rows are good by now, or gone from the source.
    pub(super) async fn drop_outdated(&mut self, examined: &Examined) -> Result<(), EngineError> {
        let Some(before) = examined.quarantine else { return Ok(()) };
        // What comes after the place where a file broke off was not read.
        let mut unread = RowSet::default();
        for held in quarantined_sources(&self.table, &QuarantineFilter::default()).await? {
            if held.run_id == self.run_id {
                unread.insert(&held.source, held.row, held.kind);
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

    /// Notes which files the table has all rows of. Files with rows in the quarantine are read again by the next run.
    pub(super) async fn finish(
        &mut self,
        Finish { pipeline, hash, source, listed }: Finish,
        since: Option<u64>,
        mut own: BTreeSet<u64>,
    ) -> Result<(), EngineError> {
        if self.documents_removed > 0 {
            own.insert(self.version);
        }
        let held = quarantined_sources(&self.table, &QuarantineFilter::default()).await?;
        let held: HashSet<&str> = held.iter().map(|row| row.source.as_str()).collect();
        let whole = self.rows_quarantined == 0 && self.removal_skipped.is_none();
        let files = source.fingerprints(listed).filter(|(file, _)| !held.contains(file)).map(|(_, hash)| hash);
        let mut files: Vec<u128> = files.collect();
        files.sort_unstable();
        let run = Finished { pipeline, source: hash.filter(|_| whole), files, rows: self.rows_read, since, own };
        self.version = finish(&self.table, &run).await?.unwrap_or(self.version);
        Ok(())
    }
}
