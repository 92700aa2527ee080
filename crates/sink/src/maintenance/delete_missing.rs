//! Deletes the documents of a table that are no longer in its source.

use std::{collections::HashMap, io};

use arrow::{array::AsArray, datatypes::UInt64Type};
use futures::TryStreamExt;
use lance::Dataset;
use lance_core::ROW_ADDR;
use polylance_schema::columns::DOC_ID;
use serde::Serialize;

use crate::{
    commit::{
        known_rows::{RowAddresses, add_row},
        properties,
        retry::{CommitRetry, is_conflict},
        transaction::{ConcurrentWrites, commit_update},
    },
    error::SinkError,
    table::open,
};

/// What [`delete_missing`] deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DeletedDocuments {
    /// Documents.
    pub documents: u64,
    /// Their rows.
    pub chunks: u64,
    /// The table's version, when there is a new one.
    #[serde(skip)]
    pub version: Option<u64>,
}

/// Deletes all rows of the documents for which `stays` returns false from the table at `uri`, in one transaction. Does
/// nothing when there is no table.
///
/// # Errors
/// [`SinkError::Conflict`] when other writers keep changing the table, [`SinkError::Ids`] when `stays` fails,
/// [`SinkError::Storage`].
pub async fn delete_missing(
    uri: &str,
    run_id: &str,
    mut stays: impl FnMut(&str) -> io::Result<bool> + Send,
) -> Result<DeletedDocuments, SinkError> {
    let Some(mut dataset) = open::latest(uri).await? else { return Ok(DeletedDocuments::default()) };
    let mut retry = CommitRetry::default();
    loop {
        let (rows, mut deleted) = find_missing(uri, &dataset, &mut stays).await?;
        if rows.is_empty() {
            return Ok(deleted);
        }
        let properties = HashMap::from([
            (properties::RUN_ID.to_owned(), run_id.to_owned()),
            (properties::REMOVED.to_owned(), deleted.documents.to_string()),
        ]);
        match Box::pin(commit_update(&dataset, Vec::new(), &rows, ConcurrentWrites::AllowDisjoint, properties)).await {
            Ok(changed) => {
                deleted.version = Some(changed.version_id());
                return Ok(deleted);
            }
            Err(source) if is_conflict(&source) => {
                retry.refresh_after_conflict(uri, &mut dataset, source).await?;
            }
            Err(source) => return Err(SinkError::storage(uri, "deleting documents")(source)),
        }
    }
}

async fn find_missing(
    uri: &str,
    dataset: &Dataset,
    stays: &mut (impl FnMut(&str) -> io::Result<bool> + Send),
) -> Result<(RowAddresses, DeletedDocuments), SinkError> {
    let reading = || SinkError::storage(uri, "reading the table's ids");
    let mut scanner = dataset.scan();
    scanner.project(&[DOC_ID]).map_err(reading())?.with_row_address();
    let mut batches = Box::pin(scanner.try_into_stream()).await.map_err(reading())?;
    let (mut rows, mut deleted) = (RowAddresses::new(), DeletedDocuments::default());
    // A document's rows are adjacent.
    let mut last: Option<(String, bool)> = None;
    while let Some(batch) = batches.try_next().await.map_err(reading())? {
        let ids = batch.column(0).as_string::<i32>();
        let Some(addresses) = batch.column_by_name(ROW_ADDR) else {
            return Err(SinkError::rows(uri, "a scan without row addresses"));
        };
        let addresses = addresses.as_primitive::<UInt64Type>();
        for row in 0..batch.num_rows() {
            let id = ids.value(row);
            let missing = match &last {
                Some((before, missing)) if before == id => *missing,
                _ => {
                    let missing = !stays(id).map_err(|source| SinkError::Ids { source })?;
                    deleted.documents += u64::from(missing);
                    last = Some((id.to_owned(), missing));
                    missing
                }
            };
            if missing {
                let address = addresses.value(row);
                add_row(&mut rows, address);
                deleted.chunks += 1;
            }
        }
    }
    Ok((rows, deleted))
}
