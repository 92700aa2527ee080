//! Drops records of the quarantine whose rows are good now, or gone from the source.
//!
//! The commit that writes a document drops its record. But not every good row is written: the table may have the
//! document already, because a bad edit was undone or because a process ended between the commit of the table and that
//! of the quarantine. And a row that was removed from its source is never read again. After a run over the whole
//! source, each row that fails has a record of this run, so older records of the same rows are outdated.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::UInt64Type,
};
use futures::TryStreamExt;
use lance::Dataset;
use lance_core::ROW_ADDR;
use polylance_schema::Stage;

use crate::{
    commit::{
        known_rows::{RowAddresses, add_row},
        properties,
        retry::{CommitRetry, is_conflict},
        transaction::{ConcurrentWrites, commit_update},
    },
    error::SinkError,
    table::{open, sidecar::quarantine_uri},
};

/// The version of the quarantine of the table at `table_uri`; `None` when there is none.
///
/// # Errors
/// [`SinkError::Storage`] when it cannot be read.
pub async fn quarantine_version(table_uri: &str) -> Result<Option<u64>, SinkError> {
    let dataset = open::latest(&quarantine_uri(table_uri)).await?;
    Ok(dataset.map(|dataset| dataset.version_id()))
}

/// Drops the records of source rows that version `before` of the quarantine has, that the run `run_id` has not renewed,
/// and for which `examined` holds: given the file and the row, it returns whether the run would have recorded a failure
/// there. Returns the number of dropped records.
///
/// Records that another run has written since stay.
///
/// # Errors
/// [`SinkError::Conflict`] when other writers keep changing the quarantine, [`SinkError::Storage`].
pub async fn drop_outdated(
    table_uri: &str,
    run_id: &str,
    before: u64,
    examined: impl Fn(&str, u64) -> bool,
) -> Result<u64, SinkError> {
    let uri = quarantine_uri(table_uri);
    let Some(mut latest) = open::latest(&uri).await? else { return Ok(0) };
    let earlier = match Box::pin(latest.checkout_version(before)).await {
        Ok(earlier) => earlier,
        // Removed by a cleanup, or the quarantine was created again: the next run tries again.
        Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. }) => return Ok(0),
        Err(error) => return Err(SinkError::storage(&uri, "reading the quarantine")(error)),
    };
    let mut outdated = HashSet::new();
    let is_outdated = |record: &Record<'_>| {
        record.stage != Stage::Annotate.as_str() && record.run_id != run_id && examined(record.source, record.row)
    };
    scan(&uri, &earlier, |record, _| {
        if is_outdated(&record) {
            outdated.insert(record.hash());
        }
    })
    .await?;
    if outdated.is_empty() {
        return Ok(0);
    }
    let mut retry = CommitRetry::default();
    loop {
        let mut rows = RowAddresses::new();
        scan(&uri, &latest, |record, address| {
            if outdated.contains(&record.hash()) && is_outdated(&record) {
                add_row(&mut rows, address);
            }
        })
        .await?;
        let count = rows.values().map(Vec::len).sum::<usize>() as u64;
        if count == 0 {
            return Ok(0);
        }
        let properties = HashMap::from([(properties::RUN_ID.to_owned(), run_id.to_owned())]);
        match Box::pin(commit_update(&latest, Vec::new(), &rows, ConcurrentWrites::AllowDisjoint, properties)).await {
            Ok(_) => return Ok(count),
            Err(source) if is_conflict(&source) => {
                retry.refresh_after_conflict(&uri, &mut latest, source).await?;
            }
            Err(source) => return Err(SinkError::storage(&uri, "dropping outdated records")(source)),
        }
    }
}

/// The identity of a record.
struct Record<'a> {
    source: &'a str,
    row: u64,
    stage: &'a str,
    run_id: &'a str,
}

impl Record<'_> {
    /// The same for a record in every version, and different when a run renews it.
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.source, self.row, self.run_id).hash(&mut hasher);
        hasher.finish()
    }
}

/// Calls `found` with each record and its row address.
async fn scan(uri: &str, dataset: &Dataset, mut found: impl FnMut(Record<'_>, u64)) -> Result<(), SinkError> {
    let reading = || SinkError::storage(uri, "reading the quarantine");
    let mut scanner = dataset.scan();
    scanner.project(&["source", "row", "stage", "run_id"]).map_err(reading())?.with_row_address();
    let mut batches = Box::pin(scanner.try_into_stream()).await.map_err(reading())?;
    while let Some(batch) = batches.try_next().await.map_err(reading())? {
        let text = |name| column(uri, &batch, name).map(AsArray::as_string::<i32>);
        let number = |name| column(uri, &batch, name).map(AsArray::as_primitive::<UInt64Type>);
        let (sources, stages, run_ids) = (text("source")?, text("stage")?, text("run_id")?);
        let (rows, addresses) = (number("row")?, number(ROW_ADDR)?);
        for at in 0..batch.num_rows() {
            let record = Record {
                source: sources.value(at),
                row: rows.value(at),
                stage: stages.value(at),
                run_id: run_ids.value(at),
            };
            found(record, addresses.value(at));
        }
    }
    Ok(())
}

fn column<'a>(uri: &str, batch: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::ArrayRef, SinkError> {
    batch.column_by_name(name).ok_or_else(|| SinkError::rows(uri, format!("a scan without the column `{name}`")))
}
