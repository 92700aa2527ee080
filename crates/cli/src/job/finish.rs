//! Which files of a source a run has finished, and which ones need not be read again.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, Utc};
use polylance_dataflow::Source;
use polylance_sink::{Finished, HeldRows, Table, finish, held_sources};

use super::{JobError, RunSummary};

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

    pub(super) async fn known(&self, table: &Table) -> Result<Known, JobError> {
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

impl RunSummary {
    /// Notes which files the table has all rows of. Files with rows in the quarantine are read again by the next run.
    pub(super) async fn finish(
        &mut self,
        Finish { pipeline, source, files }: Finish,
        since: Option<u64>,
        mut own: BTreeSet<u64>,
    ) -> Result<(), JobError> {
        if self.documents_removed > 0 {
            own.insert(self.version);
        }
        let held = held_sources(&self.table, &HeldRows::default()).await?;
        let held: HashSet<&str> = held.iter().map(|row| row.source.as_str()).collect();
        let whole = self.rows_quarantined == 0 && self.removal_skipped.is_none();
        let files = files.into_iter().filter(|(file, _)| !held.contains(file.as_str())).map(|(_, hash)| hash);
        let (source, files) = (source.filter(|_| whole), files.collect());
        let run = Finished { pipeline, source, files, rows: self.rows_read, since, own };
        self.version = finish(&self.table, &run).await?.unwrap_or(self.version);
        Ok(())
    }
}
