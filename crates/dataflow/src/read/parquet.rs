//! Parquet over ranges of an object: only the columns that are needed, a row group at a time.

use std::{ops::Range, sync::Arc};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use object_store::ObjectStoreExt;
use parquet::{
    arrow::{
        ParquetRecordBatchStreamBuilder, ProjectionMask, arrow_reader::ArrowReaderOptions,
        async_reader::AsyncFileReader,
    },
    errors::{ParquetError, Result},
    file::metadata::{ParquetMetaData, ParquetMetaDataReader},
};

use super::{BATCH_BYTES, BATCH_ROWS, Columns, OpenFile, ReadError, RowStream, columnar};

/// Parquet's interface for reading ranges, over the object stores of this workspace.
struct Ranges(OpenFile);

impl AsyncFileReader for Ranges {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move { self.0.store.get_range(&self.0.file.path, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move { self.0.store.get_ranges(&self.0.file.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        let size = self.0.file.size;
        async move { Ok(Arc::new(ParquetMetaDataReader::new().load_and_finish(self, size).await?)) }.boxed()
    }
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

pub(super) async fn schema(file: &OpenFile) -> std::result::Result<SchemaRef, ReadError> {
    let builder = ParquetRecordBatchStreamBuilder::new(Ranges(file.clone())).await?;
    Ok(Arc::clone(builder.schema()))
}

pub(super) async fn rows(file: &OpenFile, columns: &Columns) -> std::result::Result<RowStream, ReadError> {
    let builder = ParquetRecordBatchStreamBuilder::new(Ranges(file.clone())).await?;
    let positions = columnar::positions(builder.schema(), columns)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), positions);
    let metadata = Arc::clone(builder.metadata());
    let total = metadata.file_metadata().num_rows().unsigned_abs();
    let batch_rows = batch_rows(&metadata);
    let stream = builder.with_projection(mask).with_batch_size(batch_rows).build()?;

    let (columns, size, bytes_read) = (columns.clone(), file.file.size, file.bytes_read.clone());
    let mut first = 0;
    let rows = stream.map(move |batch| {
        let batch = batch?;
        let rows = columnar::rows(&batch, &columns, first)?;
        let before = share(size, first, total);
        first += batch.num_rows() as u64;
        bytes_read.add(share(size, first, total) - before);
        Ok(rows)
    });
    Ok(rows.boxed())
}

/// The part of a file's bytes that stands for its first rows.
fn share(size: u64, rows: u64, total: u64) -> usize {
    (u128::from(size) * u128::from(rows) / u128::from(total.max(1))) as usize
}

/// Rows a batch so that a batch of the widest row group has about [`BATCH_BYTES`].
fn batch_rows(metadata: &ParquetMetaData) -> usize {
    let widths = metadata.row_groups().iter().filter(|group| group.num_rows() > 0);
    let widest = widths.map(|group| group.total_byte_size() / group.num_rows()).max().unwrap_or(1).max(1);
    (BATCH_BYTES / widest.unsigned_abs() as usize).clamp(1, BATCH_ROWS)
}
