//! Lists and drops the records of a table's quarantine, and locates their rows in the source for a replay.

use std::collections::HashSet;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::UInt64Type,
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use lance::Dataset;
use lance_core::ROW_ADDR;
use polylance_schema::{RecordKind, Stage, columns::RUN_ID};

use crate::{
    commit::{
        known_rows::{RowAddresses, add_row},
        retry::is_conflict,
        transaction::{ConcurrentWrites, commit_update},
    },
    error::SinkError,
    table::{open, sidecar::quarantine_uri},
};

/// Selects records of a quarantine; without a condition, all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuarantineFilter {
    /// Only records of rows that failed at this stage.
    pub stage: Option<Stage>,
    /// Only records of this document.
    pub doc_id: Option<String>,
}

impl QuarantineFilter {
    /// As a SQL condition.
    fn condition(&self) -> String {
        let is = |column: &str, value: &str| format!("{column} = '{}'", value.replace('\'', "''"));
        let stage = self.stage.map(|stage| is("stage", stage.as_str()));
        let both: Vec<String> = stage.into_iter().chain(self.doc_id.as_ref().map(|id| is("doc_id", id))).collect();
        if both.is_empty() { "true".to_owned() } else { both.join(" AND ") }
    }
}

/// A row of a source that has a record in the quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedRow {
    /// The file.
    pub source: String,
    /// The row in it.
    pub row: u64,
    /// Whether the record is for this row or for the rest of the file too.
    pub kind: RecordKind,
    /// The last run in which it failed.
    pub run_id: String,
}

/// At most `limit` records of the quarantine of the table at `table_uri`, in the order in which they were written
/// ([`polylance_schema::quarantine_schema`]). No rows when there is no quarantine.
///
/// # Errors
/// [`SinkError::Storage`] when it cannot be read.
pub async fn quarantined_rows(
    table_uri: &str,
    filter: &QuarantineFilter,
    limit: Option<usize>,
) -> Result<BoxStream<'static, Result<RecordBatch, SinkError>>, SinkError> {
    let uri = quarantine_uri(table_uri);
    let Some(dataset) = open::latest(&uri).await? else { return Ok(futures::stream::empty().boxed()) };
    let reading = SinkError::storage(&uri, "reading the quarantine");
    let scan = async {
        let mut scanner = dataset.scan();
        scanner.filter(&filter.condition())?.scan_in_order(true).limit(limit.map(|limit| limit as i64), None)?;
        Box::pin(scanner.try_into_stream()).await
    };
    let batches = scan.await.map_err(reading)?;
    Ok(batches.map_err(move |error| SinkError::storage(&uri, "reading the quarantine")(error)).boxed())
}

/// Counts the records of the quarantine of the table at `table_uri`.
///
/// # Errors
/// [`SinkError::Storage`] when it cannot be read.
pub async fn count_quarantined(table_uri: &str, filter: &QuarantineFilter) -> Result<u64, SinkError> {
    let uri = quarantine_uri(table_uri);
    let Some(dataset) = open::latest(&uri).await? else { return Ok(0) };
    let counted = Box::pin(dataset.count_rows(Some(filter.condition()))).await;
    Ok(counted.map_err(SinkError::storage(&uri, "reading the quarantine"))? as u64)
}

/// Drops records of the quarantine and returns how many. The next run tries their documents again; a document that
/// fails again gets a record with one attempt.
///
/// # Errors
/// [`SinkError::Conflict`] when another writer commits first, or [`SinkError::Storage`].
pub async fn drop_quarantined(table_uri: &str, filter: &QuarantineFilter) -> Result<u64, SinkError> {
    let uri = quarantine_uri(table_uri);
    let Some(mut dataset) = open::latest(&uri).await? else { return Ok(0) };
    match Box::pin(dataset.delete(&filter.condition())).await {
        Ok(deleted) => Ok(deleted.num_deleted_rows),
        Err(source) if is_conflict(&source) => Err(SinkError::Conflict { uri, attempts: 1, source: Box::new(source) }),
        Err(error) => Err(SinkError::storage(&uri, "dropping rows of the quarantine")(error)),
    }
}

/// The positions of these rows in the source. Rows that a head refused are rows of the table, and not included.
///
/// # Errors
/// [`SinkError::Storage`] when the quarantine cannot be read.
pub async fn quarantined_sources(table_uri: &str, filter: &QuarantineFilter) -> Result<Vec<QuarantinedRow>, SinkError> {
    let uri = quarantine_uri(table_uri);
    let Some(dataset) = open::latest(&uri).await? else { return Ok(Vec::new()) };
    let reading = || SinkError::storage(&uri, "reading the quarantine");
    let mut scanner = dataset.scan();
    let columns = ["source", "row", "error", "stage", RUN_ID];
    scanner.project(&columns).and_then(|scanner| scanner.filter(&filter.condition())).map_err(reading())?;
    let mut batches = Box::pin(scanner.try_into_stream()).await.map_err(reading())?;
    let mut rows = Vec::new();
    while let Some(batch) = batches.try_next().await.map_err(reading())? {
        let (sources, numbers) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<UInt64Type>());
        let (errors, stages) = (batch.column(2).as_string::<i32>(), batch.column(3).as_string::<i32>());
        let runs = batch.column(4).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let kind = RecordKind::of(stages.value(row), errors.value(row));
            if kind != RecordKind::Annotation {
                let (source, run_id) = (sources.value(row).to_owned(), runs.value(row).to_owned());
                rows.push(QuarantinedRow { source, row: numbers.value(row), kind, run_id });
            }
        }
    }
    Ok(rows)
}

/// Drops annotation records of rows that a compaction moved: their address is no longer valid, and the next annotation
/// tries those rows again. When another writer commits first, nothing is dropped until the next time.
pub(crate) async fn drop_records_of_moved_rows(table_uri: &str) -> Result<(), SinkError> {
    let uri = quarantine_uri(table_uri);
    let (Some(table), Some(quarantine)) = (open::latest(table_uri).await?, open::latest(&uri).await?) else {
        return Ok(());
    };
    let dropping = || SinkError::storage(&uri, "dropping records of moved rows");
    let moved = records_of_moved_rows(&table, &quarantine).await.map_err(dropping())?;
    if moved.is_empty() {
        return Ok(());
    }
    match Box::pin(commit_update(
        &quarantine,
        vec![],
        &moved,
        ConcurrentWrites::AllowDisjoint,
        std::collections::HashMap::new(),
    ))
    .await
    {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) => Ok(()),
        Err(error) => Err(dropping()(error)),
    }
}

async fn records_of_moved_rows(table: &Dataset, quarantine: &Dataset) -> lance::Result<RowAddresses> {
    let fragments: HashSet<u64> = table.fragments().iter().map(|fragment| fragment.id).collect();
    let mut scanner = quarantine.scan();
    scanner.project(&["stage", "row"])?.with_row_address();
    let mut batches = Box::pin(scanner.try_into_stream()).await?;
    let mut moved = RowAddresses::new();
    while let Some(batch) = batches.try_next().await? {
        let (stages, numbers) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<UInt64Type>());
        let Some(addresses) = batch.column_by_name(ROW_ADDR) else { break };
        let addresses = addresses.as_primitive::<UInt64Type>();
        let is_moved = |&row: &usize| {
            stages.value(row) == Stage::Annotate.as_str() && !fragments.contains(&(numbers.value(row) >> 32))
        };
        for address in (0..batch.num_rows()).filter(is_moved).map(|row| addresses.value(row)) {
            add_row(&mut moved, address);
        }
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_escapes_quotes() {
        assert_eq!(QuarantineFilter::default().condition(), "true");
        let filter = QuarantineFilter { stage: Some(Stage::Scan), doc_id: Some("it's".into()) };
        assert_eq!(filter.condition(), "stage = 'scan' AND doc_id = 'it''s'");
    }
}
