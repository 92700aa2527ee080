//! Takes documents out of a table that are no longer in its source.

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
        retry::{Attempts, is_conflict},
        transaction::{Others, change},
    },
    error::SinkError,
    table::open,
};

/// What [`remove_documents`] took out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RemovedDocuments {
    /// Documents.
    pub documents: u64,
    /// Their rows.
    pub chunks: u64,
    /// The table's version, when there is a new one.
    #[serde(skip)]
    pub version: Option<u64>,
}

/// Takes all rows of those documents out of the table at `uri` that `stays` does not want, in one transaction. A
/// table that is not there has nothing to take out.
///
/// # Errors
/// [`SinkError::Conflict`] when other writers keep changing the table, [`SinkError::Ids`] when `stays` fails,
/// [`SinkError::Storage`].
pub async fn remove_documents(
    uri: &str,
    run_id: &str,
    mut stays: impl FnMut(&str) -> io::Result<bool> + Send,
) -> Result<RemovedDocuments, SinkError> {
    let Some(mut dataset) = open::latest(uri).await? else { return Ok(RemovedDocuments::default()) };
    let mut attempts = Attempts::default();
    loop {
        let (rows, mut removed) = find(uri, &dataset, &mut stays).await?;
        if rows.is_empty() {
            return Ok(removed);
        }
        let said = HashMap::from([
            (properties::RUN_ID.to_owned(), run_id.to_owned()),
            (properties::REMOVED.to_owned(), removed.documents.to_string()),
        ]);
        match Box::pin(change(&dataset, Vec::new(), &rows, Others::Pass, said)).await {
            Ok(changed) => {
                removed.version = Some(changed.version_id());
                return Ok(removed);
            }
            Err(source) if is_conflict(&source) => {
                attempts.conflict(uri, source).await?;
                let latest = Box::pin(dataset.checkout_latest()).await;
                latest.map_err(SinkError::storage(uri, "looking for a newer version"))?;
            }
            Err(source) => return Err(SinkError::storage(uri, "taking documents out")(source)),
        }
    }
}

async fn find(
    uri: &str,
    dataset: &Dataset,
    stays: &mut (impl FnMut(&str) -> io::Result<bool> + Send),
) -> Result<(RowAddresses, RemovedDocuments), SinkError> {
    let reading = || SinkError::storage(uri, "reading the table's ids");
    let mut scanner = dataset.scan();
    scanner.project(&[DOC_ID]).map_err(reading())?.with_row_address();
    let mut batches = Box::pin(scanner.try_into_stream()).await.map_err(reading())?;
    let (mut rows, mut removed) = (RowAddresses::new(), RemovedDocuments::default());
    // A document's rows stand together.
    let mut last: Option<(String, bool)> = None;
    while let Some(batch) = batches.try_next().await.map_err(reading())? {
        let ids = batch.column(0).as_string::<i32>();
        let Some(addresses) = batch.column_by_name(ROW_ADDR) else {
            return Err(SinkError::rows(uri, "a scan without row addresses"));
        };
        let addresses = addresses.as_primitive::<UInt64Type>();
        for row in 0..batch.num_rows() {
            let id = ids.value(row);
            let goes = match &last {
                Some((before, goes)) if before == id => *goes,
                _ => {
                    let goes = !stays(id).map_err(|source| SinkError::Ids { source })?;
                    removed.documents += u64::from(goes);
                    last = Some((id.to_owned(), goes));
                    goes
                }
            };
            if goes {
                let address = addresses.value(row);
                add_row(&mut rows, address);
                removed.chunks += 1;
            }
        }
    }
    Ok((rows, removed))
}
