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
    source: Option<String>,
    /// Address and hash of each.
    files: Vec<(String, String)>,
}

/// What the table is known to have of the source.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// All of it, and how many rows that are.
    pub(super) rows: Option<u64>,
    /// Hashes of files, maybe of other sources too.
    pub(super) hashes: HashSet<String>,
    /// How many of the source's files these are.
    pub(super) files: usize,
}

impl Finish {
    pub(super) fn of(source: &Source, listed: DateTime<Utc>, pipeline: String) -> Self {
        Self { pipeline, source: source.fingerprint(listed), files: source.fingerprints(listed) }
    }

    pub(super) async fn known(&self, table: &Table) -> Result<Known, EngineError> {
        let rows = match &self.source {
            Some(source) => table.finished(&self.pipeline, source).await?,
            None => None,
        };
        let hashes = match rows {
            Some(_) => self.files.iter().map(|(_, hash)| hash.clone()).collect(),
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
        Finish { pipeline, source, files }: Finish,
        since: Option<u64>,
        mut own: BTreeSet<u64>,
    ) -> Result<(), EngineError> {
        if self.documents_removed > 0 {
            own.insert(self.version);
        }
        let held = quarantined_sources(&self.table, &QuarantineFilter::default()).await?;
        let held: HashSet<&str> = held.iter().map(|row| row.source.as_str()).collect();
        let whole = self.rows_quarantined == 0 && self.removal_skipped.is_none();
        let files = files.into_iter().filter(|(file, _)| !held.contains(file.as_str())).map(|(_, hash)| hash);
        let (source, files) = (source.filter(|_| whole), files.collect());
        let run = Finished { pipeline, source, files, rows: self.rows_read, since, own };
        self.version = finish(&self.table, &run).await?.unwrap_or(self.version);
        Ok(())
    }
}
