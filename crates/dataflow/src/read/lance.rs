//! A fragment of a Lance table: only the needed columns, without the deleted rows.

use arrow::{
    array::{AsArray, UInt64Array},
    datatypes::{Schema, UInt64Type},
};
use futures::StreamExt;
use lance::Dataset;
use polylance_schema::columns::ROW_ADDRESS;

use super::{
    columnar,
    columns::Columns,
    error::ReadError,
    open_file::OpenFile,
    parquet::share,
    rows::{BATCH_BYTES, BATCH_ROWS, RowStream, Rows},
    types::{self, FileTypes},
};

/// The batches that are decoded ahead.
const BATCHES_AHEAD: usize = 2;

/// The columns of the table.
pub(super) fn types(table: &Dataset) -> FileTypes {
    types::declared(&Schema::from(table.schema()))
}

/// The rows of the fragment that `file` stands for. The position of a row is its offset in the fragment, deleted rows
/// included.
pub(super) async fn rows(file: &OpenFile, table: &Dataset, columns: &Columns) -> Result<RowStream, ReadError> {
    let schema = Schema::from(table.schema());
    let mut positions = columnar::positions(&schema, columns)?;
    positions.sort_unstable();
    positions.dedup();
    // A scan without columns may not have the number of its rows.
    if positions.is_empty() && !schema.fields().is_empty() {
        positions.push(0);
    }
    let names: Vec<&str> = positions.into_iter().map(|at| schema.field(at).name().as_str()).collect();

    let id = file.file.path.as_ref().parse().ok();
    let fragment = id.and_then(|id| table.get_fragment(id)).ok_or(ReadError::Changed)?;
    let total = Box::pin(fragment.count_rows(None)).await? as u64;
    let mut scanner = table.scan();
    scanner.with_fragments(vec![fragment.metadata().clone()]).with_row_address();
    scanner.batch_size(BATCH_ROWS).batch_size_bytes(BATCH_BYTES as u64).batch_readahead(BATCHES_AHEAD);
    scanner.project(&names)?;
    let batches = Box::pin(scanner.try_into_stream()).await?;

    let (columns, size, bytes_read) = (columns.clone(), file.file.size, file.counts.bytes_read.clone());
    let mut read = 0;
    let rows = batches.map(move |batch| {
        let batch = batch?;
        let address = batch.column_by_name(ROW_ADDRESS).and_then(|column| column.as_primitive_opt::<UInt64Type>());
        let address = address.ok_or_else(|| ReadError::Content("a scan without row addresses".to_owned()))?;
        // The fragment is in the upper half.
        let row = UInt64Array::from_iter_values(address.values().iter().map(|address| u64::from(*address as u32)));
        let rows = columnar::rows(&batch, &columns, 0)?;
        let before = share(size, read, total);
        read += batch.num_rows() as u64;
        bytes_read.add(share(size, read, total) - before);
        Ok(Rows { row, ..rows })
    });
    Ok(rows.boxed())
}
