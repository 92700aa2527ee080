//! The records of a table's quarantine: listed, dropped, and named for a replay.

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
        transaction::{Others, change},
    },
    error::SinkError,
    table::{open, sidecar::quarantine_uri},
};

/// Some rows of a quarantine; without a condition, all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuarantineFilter {
    /// Only those that failed at this stage.
    pub stage: Option<Stage>,
    /// Only those of this document.
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

/// A row of a source that the quarantine holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedRow {
    /// The file.
    pub source: String,
    /// The row in it.
    pub row: u64,
    /// Whether the record stands for the rest of the file too.
    pub kind: RecordKind,
    /// The run that found it last.
    pub run_id: String,
}

/// Rows of the quarantine of the table at `table_uri`, at most `limit`, in the order in which they came
/// ([`polylance_schema::quarantine_schema`]). None when there is no quarantine.
///
/// # Errors
/// [`SinkError::Storage`] when it cannot be read.
pub async fn quarantined_rows(
    table_uri: &str,
    rows: &QuarantineFilter,
    limit: Option<usize>,
) -> Result<BoxStream<'static, Result<RecordBatch, SinkError>>, SinkError> {
    let uri = quarantine_uri(table_uri);
    let Some(dataset) = open::latest(&uri).await? else { return Ok(futures::stream::empty().boxed()) };
    let reading = SinkError::storage(&uri, "reading the quarantine");
    let scan = async {
        let mut scanner = dataset.scan();
        scanner.filter(&rows.condition())?.scan_in_order(true).limit(limit.map(|limit| limit as i64), None)?;
        Box::pin(scanner.try_into_stream()).await
    };
    let batches = scan.await.map_err(reading)?;
    Ok(batches.map_err(move |error| SinkError::storage(&uri, "reading the quarantine")(error)).boxed())
}

/// How many rows of the quarantine these are.
///
/// # Errors
/// [`SinkError::Storage`] when it cannot be read.
pub async fn count_quarantined(table_uri: &str, rows: &QuarantineFilter) -> Result<u64, SinkError> {
    let uri = quarantine_uri(table_uri);
    let Some(dataset) = open::latest(&uri).await? else { return Ok(0) };
    let counted = Box::pin(dataset.count_rows(Some(rows.condition()))).await;
    Ok(counted.map_err(SinkError::storage(&uri, "reading the quarantine"))? as u64)
}

/// Takes rows out of the quarantine, and says how many. The next run tries their documents again and, when they
/// fail, holds them anew with their attempts counted from one.
///
/// # Errors
/// [`SinkError::Conflict`] when other writers are in the way, or [`SinkError::Storage`].
pub async fn drop_quarantined(table_uri: &str, rows: &QuarantineFilter) -> Result<u64, SinkError> {
    let uri = quarantine_uri(table_uri);
    let Some(mut dataset) = open::latest(&uri).await? else { return Ok(0) };
    match Box::pin(dataset.delete(&rows.condition())).await {
        Ok(deleted) => Ok(deleted.num_deleted_rows),
        Err(source) if is_conflict(&source) => Err(SinkError::Conflict { uri, attempts: 1, source: Box::new(source) }),
        Err(error) => Err(SinkError::storage(&uri, "dropping rows of the quarantine")(error)),
    }
}

/// Where in the source these rows are. Rows that a head refused are rows of the table, and not among them.
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

/// Takes out records of heads for rows that are elsewhere now: their address says nothing any more, and the next
/// annotation tries those rows again. What another writer changes meanwhile is left for the next time.
pub(crate) async fn forget_moved(table_uri: &str) -> Result<(), SinkError> {
    let uri = quarantine_uri(table_uri);
    let (Some(table), Some(quarantine)) = (open::latest(table_uri).await?, open::latest(&uri).await?) else {
        return Ok(());
    };
    let forgetting = || SinkError::storage(&uri, "forgetting moved rows");
    let moved = moved(&table, &quarantine).await.map_err(forgetting())?;
    if moved.is_empty() {
        return Ok(());
    }
    match Box::pin(change(&quarantine, vec![], &moved, Others::Pass, std::collections::HashMap::new())).await {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) => Ok(()),
        Err(error) => Err(forgetting()(error)),
    }
}

async fn moved(table: &Dataset, quarantine: &Dataset) -> lance::Result<RowAddresses> {
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
    fn a_condition_quotes_what_it_is_given() {
        assert_eq!(QuarantineFilter::default().condition(), "true");
        let rows = QuarantineFilter { stage: Some(Stage::Scan), doc_id: Some("it's".into()) };
        assert_eq!(rows.condition(), "stage = 'scan' AND doc_id = 'it''s'");
    }
}
