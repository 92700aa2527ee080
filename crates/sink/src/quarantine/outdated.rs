//! Takes records out of the quarantine whose rows are good, or gone from the source.
//!
//! A record goes with the commit that writes its document. Not every good row is written: the table may have the
//! document already, because a bad edit was undone or because a process ended between the commit of the table and that
//! of the quarantine. And a row that left its source is never read again. A run that has read the whole source knows:
//! each row that is bad has a record of this run, so what the quarantine had before of the same rows is outdated.

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
        retry::{Attempts, is_conflict},
        transaction::{Others, change},
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

/// Takes out the records of the source's rows that were there at version `before` of the quarantine, that the run
/// `run_id` has not renewed, and for which `examined` holds: it is given the file and the row, and says whether the run
/// would have found a bad row there. Returns how many went.
///
/// Records that another run has written meanwhile stay.
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
        // Cleaned up, or made anew: the next run tries again.
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
    let mut attempts = Attempts::default();
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
        match Box::pin(change(&latest, Vec::new(), &rows, Others::Pass, properties)).await {
            Ok(_) => return Ok(count),
            Err(source) if is_conflict(&source) => {
                attempts.conflict(&uri, source).await?;
                let refreshed = Box::pin(latest.checkout_latest()).await;
                refreshed.map_err(SinkError::storage(&uri, "looking for a newer version"))?;
            }
            Err(source) => return Err(SinkError::storage(&uri, "dropping outdated records")(source)),
        }
    }
}

/// What tells one record from another.
struct Record<'a> {
    source: &'a str,
    row: u64,
    stage: &'a str,
    run_id: &'a str,
}

impl Record<'_> {
    /// The same for a record in every version, and another when a run renews it.
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.source, self.row, self.run_id).hash(&mut hasher);
        hasher.finish()
    }
}

/// Calls back with each record and its address.
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
