//! Writes the records of documents that could not be embedded: their position in the source, and why.
//!
//! The quarantine is a table of its own next to the main one, keyed by source and row. A document that fails again
//! replaces its record and adds one to its attempts; one that is written to the table leaves the quarantine.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array, UInt64Array},
    datatypes::{UInt32Type, UInt64Type},
};
use lance::{
    Dataset,
    dataset::{InsertBuilder, WriteMode, WriteParams, transaction::Operation},
};
use lance_table::format::Fragment;
use polylance_ids::SeenIds;
use polylance_schema::{columns::RUN_ID, quarantine_schema};

use crate::{
    commit::{
        known_rows::{KnownRows, RowAddresses},
        retry::{CommitRetry, is_conflict},
        transaction::{ConcurrentWrites, commit_first_version, commit_update, file_names},
    },
    error::SinkError,
    table::{open, schema_check::column_differences, sidecar::quarantine_uri, synced_store},
    write::window::{FailedDocument, Window},
};

const KEY_COLUMNS: [&str; 5] = ["source", "row", "doc_id", "attempts", RUN_ID];

/// The outcome of one attempt to update the quarantine.
enum Update {
    Done,
    Conflict(lance::Error),
}

/// The quarantine of one table during one run.
#[derive(Debug)]
pub(crate) struct Quarantine {
    uri: String,
    run_id: String,
    dataset: Option<Dataset>,
    known: KnownRows,
}

impl Quarantine {
    pub(crate) async fn open(table_uri: &str, run_id: &str) -> Result<Self, SinkError> {
        let uri = quarantine_uri(table_uri);
        let dataset = open::latest(&uri).await?;
        Ok(Self { uri, run_id: run_id.to_owned(), dataset, known: KnownRows::default() })
    }

    /// Adds records of the window's failed documents and drops those of the documents that it has written.
    pub(crate) async fn update(
        &mut self,
        window: &Window,
        properties: &HashMap<String, String>,
    ) -> Result<(), SinkError> {
        if self.dataset.is_none() && window.quarantine.is_empty() {
            return Ok(());
        }
        let mut retry = CommitRetry::default();
        while let Update::Conflict(conflict) = self.try_update(window, properties.clone()).await? {
            retry.wait_after_conflict(&self.uri, conflict).await?;
            self.dataset = open::latest(&self.uri).await?;
        }
        Ok(())
    }

    async fn try_update(&mut self, window: &Window, properties: HashMap<String, String>) -> Result<Update, SinkError> {
        let existing = match &self.dataset {
            Some(dataset) => ExistingRecords::read(&self.uri, dataset, &mut self.known, window, &self.run_id).await?,
            None => ExistingRecords::default(),
        };
        if window.quarantine.is_empty() && existing.rows.is_empty() {
            return Ok(Update::Done);
        }
        let fragments = self.write(&window.quarantine, &existing.attempts).await?;
        let files = file_names(&fragments);
        let committed = match &self.dataset {
            Some(dataset) => {
                Box::pin(commit_update(dataset, fragments, &existing.rows, ConcurrentWrites::Reject, properties)).await
            }
            None => Box::pin(commit_first_version(&self.uri, &quarantine_schema(), fragments, properties)).await,
        };
        match committed {
            Ok(dataset) => {
                self.known.mark_own(&dataset, &files);
                self.dataset = Some(dataset);
                Ok(Update::Done)
            }
            Err(error) if is_conflict(&error) => Ok(Update::Conflict(error)),
            Err(error) => Err(SinkError::storage(&self.uri, "committing the quarantine")(error)),
        }
    }

    async fn write(
        &self,
        failed: &[FailedDocument],
        attempts: &HashMap<(String, u64), u32>,
    ) -> Result<Vec<Fragment>, SinkError> {
        if failed.is_empty() {
            return Ok(vec![]);
        }
        let batch = self.records(failed, attempts).map_err(|error| SinkError::rows(&self.uri, error.to_string()))?;
        let session = Some(synced_store::session());
        let params = WriteParams { mode: WriteMode::Append, session, ..WriteParams::default() };
        let insert = InsertBuilder::new(self.uri.as_str()).with_params(&params);
        let transaction = Box::pin(insert.execute_uncommitted(vec![batch]))
            .await
            .map_err(SinkError::storage(&self.uri, "writing data files"))?;
        match transaction.operation {
            Operation::Append { fragments } | Operation::Overwrite { fragments, .. } => Ok(fragments),
            other => Err(SinkError::rows(&self.uri, format!("lance planned `{other}` for an append"))),
        }
    }

    fn records(
        &self,
        failed: &[FailedDocument],
        attempts: &HashMap<(String, u64), u32>,
    ) -> Result<RecordBatch, arrow::error::ArrowError> {
        let text = |value: fn(&FailedDocument) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(failed.iter().map(value)))
        };
        let optional = |value: fn(&FailedDocument) -> Option<&str>| -> ArrayRef {
            Arc::new(failed.iter().map(value).collect::<StringArray>())
        };
        let tries = failed.iter().map(|b| attempts.get(&(b.source.clone(), b.row)).map_or(1, |n| n.saturating_add(1)));
        let now = chrono::Utc::now().timestamp_micros();
        let columns = vec![
            text(|b| &b.source),
            Arc::new(UInt64Array::from_iter_values(failed.iter().map(|b| b.row))),
            optional(|b| b.doc_id.as_deref()),
            text(|b| &b.stage),
            text(|b| &b.error),
            Arc::new(UInt32Array::from_iter_values(tries)),
            Arc::new(TimestampMicrosecondArray::from_value(now, failed.len()).with_timezone("UTC")),
            Arc::new(StringArray::from_iter_values(failed.iter().map(|_| &self.run_id))),
            optional(|b| b.text.as_deref()),
        ];
        RecordBatch::try_new(quarantine_schema(), columns)
    }
}

/// The records that the quarantine already has of a window's documents.
#[derive(Debug, Default)]
struct ExistingRecords {
    /// Records that the window replaces or makes obsolete.
    rows: RowAddresses,
    /// Attempts so far of documents that failed again.
    attempts: HashMap<(String, u64), u32>,
}

impl ExistingRecords {
    async fn read(
        uri: &str,
        dataset: &Dataset,
        known: &mut KnownRows,
        window: &Window,
        run_id: &str,
    ) -> Result<Self, SinkError> {
        read_new_keys(uri, dataset, known).await?;
        let keys = WindowKeys::new(window);
        let mut attempts = HashMap::new();
        if !keys.may_be_in(known)? {
            return Ok(Self::default());
        }
        let replaced = |batch: &RecordBatch, row: usize| {
            let record = Record::at(batch, row);
            // One of this run's own records, moved by a compaction.
            if record.run_id == run_id {
                return false;
            }
            if keys.failed.contains(&record.key()) {
                let known_attempts: &mut u32 = attempts.entry((record.source.to_owned(), record.row)).or_default();
                *known_attempts = record.attempts.max(*known_attempts);
                return true;
            }
            keys.contain_written(&record)
        };
        let rows = known.find_rows(uri, dataset, &KEY_COLUMNS, replaced).await?;
        Ok(Self { rows, attempts })
    }
}

/// The keys under which the quarantine may have a window's documents.
struct WindowKeys<'a> {
    /// Source and row of the documents that failed.
    failed: HashSet<(&'a str, u64)>,
    written: HashSet<(&'a str, u64)>,
    written_ids: HashSet<&'a str>,
}

impl<'a> WindowKeys<'a> {
    fn new(window: &'a Window) -> Self {
        Self {
            failed: window.quarantine.iter().map(|bad| (bad.source.as_str(), bad.row)).collect(),
            written: window.documents.iter().map(|d| (d.source.as_str(), d.row)).collect(),
            written_ids: window.documents.iter().map(|d| d.doc_id.as_str()).collect(),
        }
    }

    fn may_be_in(&self, known: &mut KnownRows) -> Result<bool, SinkError> {
        for key in self.failed.union(&self.written) {
            if known.may_contain(row_key(*key))? {
                return Ok(true);
            }
        }
        for id in &self.written_ids {
            if known.may_contain(id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the window has written the document of `record`.
    fn contain_written(&self, record: &Record<'_>) -> bool {
        self.written.contains(&record.key()) || record.doc_id.is_some_and(|id| self.written_ids.contains(id))
    }
}

async fn read_new_keys(uri: &str, dataset: &Dataset, known: &mut KnownRows) -> Result<(), SinkError> {
    let mut columns = column_differences(&arrow::datatypes::Schema::from(dataset.schema()), &quarantine_schema());
    // Columns that other programs have added stay, and are null in new records.
    columns.retain(|difference| difference.run.is_some());
    if !columns.is_empty() {
        return Err(SinkError::SchemaMismatch { uri: uri.to_owned(), columns });
    }
    known.read_new_fragments(uri, dataset, &KEY_COLUMNS, add_keys).await
}

/// The key columns of one quarantine row.
struct Record<'a> {
    source: &'a str,
    row: u64,
    doc_id: Option<&'a str>,
    attempts: u32,
    run_id: &'a str,
}

impl<'a> Record<'a> {
    /// `batch` has the columns [`KEY_COLUMNS`] in their order: it was read with that projection.
    fn at(batch: &'a RecordBatch, row: usize) -> Self {
        let ids = batch.column(2).as_string::<i32>();
        Self {
            source: batch.column(0).as_string::<i32>().value(row),
            row: batch.column(1).as_primitive::<UInt64Type>().value(row),
            doc_id: ids.is_valid(row).then(|| ids.value(row)),
            attempts: batch.column(3).as_primitive::<UInt32Type>().value(row),
            run_id: batch.column(4).as_string::<i32>().value(row),
        }
    }

    fn key(&self) -> (&'a str, u64) {
        (self.source, self.row)
    }
}

fn add_keys(batch: &RecordBatch, keys: &mut SeenIds) -> io::Result<()> {
    for row in 0..batch.num_rows() {
        let record = Record::at(batch, row);
        keys.insert(row_key(record.key()))?;
        if let Some(id) = record.doc_id {
            keys.insert(id)?;
        }
    }
    Ok(())
}

/// The key of a row of a source.
fn row_key((source, row): (&str, u64)) -> Vec<u8> {
    [&row.to_le_bytes(), source.as_bytes()].concat()
}
