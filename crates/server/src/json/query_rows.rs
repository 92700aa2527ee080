//! The rows of a statement as JSON, as many as a response may have.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, SchemaRef},
};
use futures::TryStreamExt;
use polylance_search::SearchError;
use serde_json::value::RawValue;

use super::rows::rows;
use crate::{error::ApiError, limits::Limits, tables::Snapshot};

/// Rows that become text together, and about how many bytes they may have unless it is one row.
const SLICE_ROWS: usize = 256;
const SLICE_BYTES: usize = 1 << 20;

/// The rows of a statement.
pub(crate) struct QueryRows {
    pub(crate) schema: SchemaRef,
    pub(crate) rows: Vec<Box<RawValue>>,
    /// Whether the statement has more rows.
    pub(crate) truncated: bool,
}

/// Reads a statement's rows until the response is full.
pub(crate) async fn read_rows(snapshot: &Snapshot, sql: &str, limits: &Limits) -> Result<QueryRows, ApiError> {
    let api_error = |error: SearchError| ApiError::from_search(&error, None);
    let mut batches = Box::pin(snapshot.sql.query(sql)).await.map_err(api_error)?;
    let mut read = QueryRows { schema: batches.schema(), rows: Vec::new(), truncated: false };
    let mut bytes = 0;
    while let Some(batch) = batches.try_next().await.map_err(|error| api_error(SearchError::from(error)))? {
        let room = limits.max_rows - read.rows.len();
        read.truncated = batch.num_rows() > room;
        // In slices, so that the limit is noticed before all rows are text.
        let shown = batch.num_rows().min(room);
        let mut first = 0;
        while first < shown {
            let slice = bounded_slice(&batch.slice(first, SLICE_ROWS.min(shown - first)));
            first += slice.num_rows();
            for row in rows(&slice)? {
                bytes += row.get().len();
                if bytes > limits.max_response_bytes {
                    read.truncated = true;
                    return Ok(read);
                }
                read.rows.push(row);
            }
        }
        if read.truncated {
            break;
        }
    }
    Ok(read)
}

/// The first rows that have at most [`SLICE_BYTES`] together, or one row.
fn bounded_slice(rows: &RecordBatch) -> RecordBatch {
    let mut slice = rows.clone();
    while slice.num_rows() > 1 && byte_count(&slice) > SLICE_BYTES {
        slice = slice.slice(0, slice.num_rows() / 2);
    }
    slice
}

fn byte_count(rows: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| match column.data_type() {
        // The memory size of a view does not include the texts that it points to.
        DataType::Utf8View => column.as_string_view().views().iter().map(|view| *view as u32 as usize).sum(),
        _ => column.to_data().get_slice_memory_size().unwrap_or(SLICE_BYTES),
    };
    rows.columns().iter().map(bytes).sum()
}
