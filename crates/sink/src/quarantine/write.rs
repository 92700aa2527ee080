//! The quarantine: documents that could not be embedded, with where they are and why.
//!
//! A table of its own beside the main one, keyed by source and row. A document that fails again
//! replaces its record and counts one attempt more; one that reaches the table leaves the quarantine.

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
        retry::{Attempts, is_conflict},
        transaction::{Others, change, create, file_names},
    },
    error::SinkError,
    table::{open, schema_check::column_differences, sidecar::quarantine_uri, synced_store},
    write::window::{BadDocument, Window},
};

const COLUMNS: [&str; 5] = ["source", "row", "doc_id", "attempts", RUN_ID];

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

    /// Records the window's bad documents and forgets those that it has written.
    pub(crate) async fn update(
        &mut self,
        window: &Window,
        properties: &HashMap<String, String>,
    ) -> Result<(), SinkError> {
        if self.dataset.is_none() && window.quarantine.is_empty() {
            return Ok(());
        }
        let mut attempts = Attempts::default();
        while let Err(conflict) = self.try_update(window, properties.clone()).await? {
            attempts.conflict(&self.uri, conflict).await?;
            self.dataset = open::latest(&self.uri).await?;
        }
        Ok(())
    }

    /// One attempt; the inner error is a conflict.
    async fn try_update(
        &mut self,
        window: &Window,
        properties: HashMap<String, String>,
    ) -> Result<Result<(), lance::Error>, SinkError> {
        let before = match &self.dataset {
            Some(dataset) => Before::read(&self.uri, dataset, &mut self.known, window, &self.run_id).await?,
            None => Before::default(),
        };
        if window.quarantine.is_empty() && before.rows.is_empty() {
            return Ok(Ok(()));
        }
        let fragments = self.write(&window.quarantine, &before.attempts).await?;
        let files = file_names(&fragments);
        let committed = match &self.dataset {
            Some(dataset) => Box::pin(change(dataset, fragments, &before.rows, Others::Heed, properties)).await,
            None => Box::pin(create(&self.uri, &quarantine_schema(), fragments, properties)).await,
        };
        match committed {
            Ok(dataset) => {
                self.known.own(&dataset, &files);
                self.dataset = Some(dataset);
                Ok(Ok(()))
            }
            Err(error) if is_conflict(&error) => Ok(Err(error)),
            Err(error) => Err(SinkError::storage(&self.uri, "committing the quarantine")(error)),
        }
    }

    async fn write(
        &self,
        bad: &[BadDocument],
        attempts: &HashMap<(String, u64), u32>,
    ) -> Result<Vec<Fragment>, SinkError> {
        if bad.is_empty() {
            return Ok(vec![]);
        }
        let batch = self.records(bad, attempts).map_err(|error| SinkError::rows(&self.uri, error.to_string()))?;
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
        bad: &[BadDocument],
        attempts: &HashMap<(String, u64), u32>,
    ) -> Result<RecordBatch, arrow::error::ArrowError> {
        let text = |value: fn(&BadDocument) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(bad.iter().map(value)))
        };
        let optional = |value: fn(&BadDocument) -> Option<&str>| -> ArrayRef {
            Arc::new(bad.iter().map(value).collect::<StringArray>())
        };
        let tries = bad.iter().map(|b| attempts.get(&(b.source.clone(), b.row)).map_or(1, |n| n.saturating_add(1)));
        let now = chrono::Utc::now().timestamp_micros();
        let columns = vec![
            text(|b| &b.source),
            Arc::new(UInt64Array::from_iter_values(bad.iter().map(|b| b.row))),
            optional(|b| b.doc_id.as_deref()),
            text(|b| &b.stage),
            text(|b| &b.error),
            Arc::new(UInt32Array::from_iter_values(tries)),
            Arc::new(TimestampMicrosecondArray::from_value(now, bad.len()).with_timezone("UTC")),
            Arc::new(StringArray::from_iter_values(bad.iter().map(|_| &self.run_id))),
            optional(|b| b.text.as_deref()),
        ];
        RecordBatch::try_new(quarantine_schema(), columns)
    }
}

/// What the quarantine already says about a window's documents.
#[derive(Debug, Default)]
struct Before {
    /// Records that the window replaces or makes obsolete.
    rows: RowAddresses,
    /// Attempts so far of the documents that failed again.
    attempts: HashMap<(String, u64), u32>,
}

impl Before {
    async fn read(
        uri: &str,
        dataset: &Dataset,
        known: &mut KnownRows,
        window: &Window,
        run_id: &str,
    ) -> Result<Self, SinkError> {
        learn(uri, dataset, known).await?;
        let keys = Keys::of(window);
        let mut attempts = HashMap::new();
        if !keys.may_be_among(known)? {
            return Ok(Self::default());
        }
        let replaced = |batch: &RecordBatch, row: usize| {
            let record = Record::at(batch, row);
            // This run's own records, when a compaction has moved them.
            if record.run_id == run_id {
                return false;
            }
            if keys.failed.contains(&record.key()) {
                let most: &mut u32 = attempts.entry((record.source.to_owned(), record.row)).or_default();
                *most = record.attempts.max(*most);
                return true;
            }
            keys.are_written(&record)
        };
        let rows = known.locate(uri, dataset, &COLUMNS, replaced).await?;
        Ok(Self { rows, attempts })
    }
}

/// By what a window's documents are found in the quarantine.
struct Keys<'a> {
    /// Source and row of the documents that failed.
    failed: HashSet<(&'a str, u64)>,
    written: HashSet<(&'a str, u64)>,
    written_ids: HashSet<&'a str>,
}

impl<'a> Keys<'a> {
    fn of(window: &'a Window) -> Self {
        Self {
            failed: window.quarantine.iter().map(|bad| (bad.source.as_str(), bad.row)).collect(),
            written: window.documents.iter().map(|d| (d.source.as_str(), d.row)).collect(),
            written_ids: window.documents.iter().map(|d| d.doc_id.as_str()).collect(),
        }
    }

    fn may_be_among(&self, known: &mut KnownRows) -> Result<bool, SinkError> {
        for key in self.failed.union(&self.written) {
            if known.may_hold(row_key(*key))? {
                return Ok(true);
            }
        }
        for id in &self.written_ids {
            if known.may_hold(id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the window has written the document that `record` calls bad.
    fn are_written(&self, record: &Record<'_>) -> bool {
        self.written.contains(&record.key()) || record.doc_id.is_some_and(|id| self.written_ids.contains(id))
    }
}

async fn learn(uri: &str, dataset: &Dataset, known: &mut KnownRows) -> Result<(), SinkError> {
    let mut columns = column_differences(&arrow::datatypes::Schema::from(dataset.schema()), &quarantine_schema());
    // What others have added is theirs, and null in new records.
    columns.retain(|difference| difference.run.is_some());
    if !columns.is_empty() {
        return Err(SinkError::SchemaMismatch { uri: uri.to_owned(), columns });
    }
    known.learn(uri, dataset, &COLUMNS, add_keys).await
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
    /// `batch` has the columns [`COLUMNS`] in their order: it was read with that projection.
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

/// The bytes under which a row of a source is known.
fn row_key((source, row): (&str, u64)) -> Vec<u8> {
    [&row.to_le_bytes(), source.as_bytes()].concat()
}
