//! The rows of a table that have no value in a column.

use arrow::{
    array::{Array, AsArray},
    datatypes::UInt64Type,
};
use futures::TryStreamExt;
use lance::{Dataset, dataset::fragment::FileFragment};
use lance_core::ROW_ADDR;

use crate::{error::SinkError, table::open};

/// The number of rows without a value in `column`, in the latest version of the table.
///
/// # Errors
/// [`SinkError::NoTable`], or [`SinkError::Storage`] when the column cannot be read.
pub async fn missing_rows(uri: &str, column: &str) -> Result<u64, SinkError> {
    let dataset = open::existing(uri).await?;
    let mut missing = 0;
    for fragment in dataset.get_fragments() {
        missing += match missing_in_fragment(uri, &dataset, &fragment, column).await? {
            Missing::All => {
                let rows = Box::pin(fragment.count_rows(None)).await;
                rows.map_err(SinkError::storage(uri, "counting rows"))? as u64
            }
            Missing::Rows(rows) => rows.len() as u64,
        };
    }
    Ok(missing)
}

/// The rows of a fragment that have no value.
#[derive(Debug)]
pub(super) enum Missing {
    /// The fragment has no file with the column.
    All,
    /// Their offsets, ascending.
    Rows(Vec<u32>),
}

impl Missing {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Rows(rows) if rows.is_empty())
    }

    pub(super) fn contains(&self, offset: u32) -> bool {
        match self {
            Self::All => true,
            Self::Rows(rows) => rows.binary_search(&offset).is_ok(),
        }
    }
}

/// Reads the column of a fragment; nothing is read when the fragment has no file with it.
pub(super) async fn missing_in_fragment(
    uri: &str,
    dataset: &Dataset,
    fragment: &FileFragment,
    column: &str,
) -> Result<Missing, SinkError> {
    if !has_column(dataset, fragment, column) {
        return Ok(Missing::All);
    }
    let reading = || SinkError::storage(uri, "reading an annotation column");
    let mut scanner = dataset.scan();
    scanner.with_fragments(vec![fragment.metadata().clone()]).with_row_address();
    scanner.project(&[column]).map_err(reading())?;
    let mut batches = Box::pin(scanner.try_into_stream()).await.map_err(reading())?;
    let mut rows = Vec::new();
    while let Some(batch) = batches.try_next().await.map_err(reading())? {
        let (Some(values), Some(addresses)) = (batch.column_by_name(column), batch.column_by_name(ROW_ADDR)) else {
            return Err(SinkError::rows(uri, format!("a scan without {column:?} or row addresses")));
        };
        let addresses = addresses.as_primitive::<UInt64Type>();
        rows.extend((0..batch.num_rows()).filter(|&row| values.is_null(row)).map(|row| addresses.value(row) as u32));
    }
    Ok(Missing::Rows(rows))
}

/// Whether a data file of the fragment has values of the column.
pub(super) fn has_column(dataset: &Dataset, fragment: &FileFragment, column: &str) -> bool {
    let Some(field) = dataset.schema().field(column) else { return false };
    let mut ids = vec![field.id];
    let mut open: Vec<_> = field.children.iter().collect();
    while let Some(child) = open.pop() {
        ids.push(child.id);
        open.extend(&child.children);
    }
    fragment.metadata().files.iter().any(|file| file.fields.iter().any(|id| ids.contains(id)))
}
