//! Parquet over ranges of an object: only the needed columns, one row group at a time.

mod pruning;
mod widths;

use std::{ops::Range, sync::Arc};

use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use object_store::{OBJECT_STORE_COALESCE_DEFAULT, coalesce_ranges};
use parquet::{
    arrow::{
        ParquetRecordBatchStreamBuilder, ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
        async_reader::AsyncFileReader,
    },
    errors::{ParquetError, Result},
    file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData},
};

use super::{
    columnar,
    columns::Columns,
    error::ReadError,
    open_file::OpenFile,
    rows::{BATCH_BYTES, BATCH_ROWS, RowStream, Rows},
};

/// Parquet's interface for reading ranges, over the object stores of this workspace.
struct Ranges(OpenFile);

impl AsyncFileReader for Ranges {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.0.part(range).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        // Adjacent ranges are one request, and all requests are sent at once.
        async move { coalesce_ranges(&ranges, |range| self.0.part(range), OBJECT_STORE_COALESCE_DEFAULT).await }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        let size = self.0.file.size;
        async move { Ok(Arc::new(ParquetMetaDataReader::new().load_and_finish(self, size).await?)) }.boxed()
    }
}

impl OpenFile {
    async fn part(&self, range: Range<u64>) -> Result<Bytes> {
        let result = self.get(Some(range)).await.map_err(external)?;
        result.bytes().await.map_err(|error| external(error.into()))
    }
}

fn external(error: ReadError) -> ParquetError {
    ParquetError::External(Box::new(error))
}

type Reader = Box<dyn AsyncFileReader>;

/// Makes readers of one file. It is downloaded whole if its parts may be of several versions.
enum FileSource {
    Parts(Box<OpenFile>),
    Whole(std::fs::File),
}

impl FileSource {
    async fn open(file: &OpenFile) -> std::result::Result<Self, ReadError> {
        Ok(if file.has_parts() { Self::Parts(Box::new(file.clone())) } else { Self::Whole(file.local().await?) })
    }

    fn reader(&self) -> std::io::Result<Reader> {
        Ok(match self {
            Self::Parts(file) => Box::new(Ranges(file.as_ref().clone())),
            Self::Whole(file) => Box::new(tokio::fs::File::from_std(file.try_clone()?)),
        })
    }

    async fn metadata(&self) -> std::result::Result<ArrowReaderMetadata, ReadError> {
        Ok(ArrowReaderMetadata::load_async(&mut self.reader()?, ArrowReaderOptions::new()).await?)
    }
}

pub(super) async fn schema(file: &OpenFile) -> std::result::Result<SchemaRef, ReadError> {
    Ok(Arc::clone(FileSource::open(file).await?.metadata().await?.schema()))
}

/// The bytes at which the row groups begin, by their shares of the rows.
pub(super) async fn row_group_begins(file: &OpenFile) -> std::result::Result<Vec<u64>, ReadError> {
    let arrow = FileSource::open(file).await?.metadata().await?;
    let groups = arrow.metadata().row_groups();
    let rows = |group: &RowGroupMetaData| group.num_rows().unsigned_abs();
    let total = groups.iter().map(rows).fold(0, u64::saturating_add);
    let mut first = 0_u64;
    let begin = |group: &RowGroupMetaData| {
        let begin = share(file.file.size, first, total) as u64;
        first = first.saturating_add(rows(group));
        begin
    };
    Ok(groups.iter().map(begin).collect())
}

pub(super) async fn rows(file: &OpenFile, columns: &Columns) -> std::result::Result<RowStream, ReadError> {
    let source = FileSource::open(file).await?;
    let arrow = source.metadata().await?;
    let positions = columnar::positions(arrow.schema(), columns)?;
    let metadata = Arc::clone(arrow.metadata());
    let mask = ProjectionMask::roots(arrow.parquet_schema(), positions);
    let total = metadata.file_metadata().num_rows().unsigned_abs();

    let pruned = match &columns.pruning {
        Some(condition) => pruning::without_rows(condition, &arrow),
        None => Vec::new(),
    };
    let (columns, size, counts) = (columns.clone(), file.file.size, file.counts.clone());
    let wanted = file.row_groups.clone();
    let rows = try_stream! {
        let mut first = 0;
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let is_wanted = wanted.as_ref().is_none_or(|wanted| wanted.contains(&number));
            let is_pruned = pruned.get(number) == Some(&true);
            if !is_wanted || is_pruned {
                first += group.num_rows().unsigned_abs();
                counts.row_groups_pruned.add(usize::from(is_wanted));
                continue;
            }
            let batch_rows = widths::batch_rows(group, &mask, &mut source.reader()?).await?;
            let mut batches =
                ParquetRecordBatchStreamBuilder::new_with_metadata(source.reader()?, arrow.clone())
                    .with_projection(mask.clone())
                    .with_row_groups(vec![number])
                    .with_batch_size(batch_rows)
                    .build()?;
            let mut gathered = Gathered::default();
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                let rows = columnar::rows(&batch, &columns, first)?;
                let before = share(size, first, total);
                first += batch.num_rows() as u64;
                counts.bytes_read.add(share(size, first, total) - before);
                gathered.push(rows, batch.get_array_memory_size());
                if gathered.is_full() {
                    yield gathered.take()?;
                }
            }
            if !gathered.rows.is_empty() {
                yield gathered.take()?;
            }
        }
    };
    Ok(rows.boxed())
}

/// The share of a file's bytes that its first rows have.
pub(super) fn share(size: u64, rows: u64, total: u64) -> usize {
    (u128::from(size) * u128::from(rows) / u128::from(total.max(1))) as usize
}

/// Small batches of one file, gathered into one of the usual size.
#[derive(Default)]
struct Gathered {
    rows: Vec<Rows>,
    count: usize,
    bytes: usize,
}

impl Gathered {
    fn push(&mut self, rows: Rows, bytes: usize) {
        self.count += rows.errors.len();
        self.bytes += bytes;
        self.rows.push(rows);
    }

    fn is_full(&self) -> bool {
        self.count >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// Concatenates the batches.
    fn take(&mut self) -> std::result::Result<Rows, ReadError> {
        let mut rows = std::mem::take(self).rows;
        match rows.pop() {
            Some(only) if rows.is_empty() => Ok(only),
            Some(last) => {
                rows.push(last);
                Ok(Rows::concat(rows)?)
            }
            None => Err(ReadError::Content("a batch without rows".into())),
        }
    }
}
