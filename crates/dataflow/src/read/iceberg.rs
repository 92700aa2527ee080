//! A data file of an Iceberg table: only the needed columns, without the deleted rows.

use futures::StreamExt;
use polylance_iceberg::IcebergTable;

use super::{
    columnar,
    columns::Columns,
    error::ReadError,
    open_file::OpenFile,
    parquet::share,
    rows::{BATCH_BYTES, BATCH_ROWS, RowStream},
    types::{self, FileTypes},
};

/// How many times as large as in Parquet a row is assumed to be in memory.
const COMPRESSION: u64 = 8;

/// The columns of the table.
pub(super) fn types(table: &IcebergTable) -> FileTypes {
    types::declared(table.schema())
}

/// The rows of the data file that `file` stands for. The position of a row counts the rows before it that are not
/// deleted.
pub(super) fn rows(file: &OpenFile, table: &IcebergTable, columns: &Columns) -> Result<RowStream, ReadError> {
    let mut positions = columnar::positions(table.schema(), columns)?;
    positions.sort_unstable();
    positions.dedup();
    // A batch without columns would not have the number of its rows.
    if positions.is_empty() {
        positions.push(0);
    }
    let index: usize = file.file.path.as_ref().parse().map_err(|_| ReadError::Changed)?;
    let data_file = table.files().get(index).ok_or(ReadError::Changed)?;
    let (size, total) = (data_file.size, data_file.rows);
    let row_bytes = size.saturating_mul(COMPRESSION) / total.max(1);
    let batch_rows = (BATCH_BYTES as u64 / row_bytes.max(1)).clamp(1, BATCH_ROWS as u64) as usize;
    let batches = table.rows(data_file, &positions, batch_rows)?;

    let (columns, bytes_read) = (columns.clone(), file.counts.bytes_read.clone());
    let mut read = 0;
    let rows = batches.map(move |batch| {
        let batch = batch?;
        let rows = columnar::rows(&batch, &columns, read)?;
        let before = share(size, read, total);
        read += batch.num_rows() as u64;
        bytes_read.add(share(size, read, total) - before);
        Ok(rows)
    });
    Ok(rows.boxed())
}
