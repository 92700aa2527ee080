//! Reads one file as a stream of [`Rows`], whatever its format.

mod arrow_ipc;
mod columnar;
mod csv;
mod jsonl;
mod lines;
mod parquet;
mod records;

use std::{error::Error, io, sync::Arc};

use ::arrow::{
    datatypes::{FieldRef, SchemaRef},
    error::ArrowError,
};
use ::parquet::errors::ParquetError;
use datafusion::physical_plan::metrics::Count;
use futures::{TryStreamExt, stream::BoxStream};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use tokio::io::AsyncReadExt;
use tokio_util::io::StreamReader;

use crate::{
    batches::Rows,
    format::{Compression, Format, HEAD, sniff},
    location::SourceFile,
};

/// Rows in a batch at most.
pub(crate) const BATCH_ROWS: usize = 1024;
/// Bytes of text in a batch, about.
pub(crate) const BATCH_BYTES: usize = 4 << 20;

/// Which columns of a file are read, and as what.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    pub(crate) id: String,
    pub(crate) text: String,
    /// Names and types in the table.
    pub(crate) keep: Vec<FieldRef>,
    pub(crate) max_bytes: u64,
    /// Whether the content is not wanted: formats that can leave it unread do so.
    pub(crate) only_ids: bool,
}

/// Why a file, or the rest of it, cannot be read: one row of the quarantine, unless the store is to blame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{0}")]
    Storage(#[from] object_store::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Parquet(#[from] ParquetError),
    #[error("{0}")]
    Arrow(#[from] ArrowError),
    #[error("{0}")]
    Content(String),
}

impl ReadError {
    /// Whether the store failed, and not the file: others will fail as well, and this one is good when the store is.
    pub(crate) fn is_of_the_store(&self) -> bool {
        let mut next: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<object_store::Error>() {
                return !matches!(error, object_store::Error::NotFound { .. });
            }
            next = match (error.downcast_ref(), error.downcast_ref()) {
                (Some(ParquetError::External(inner)), _) => Some(inner.as_ref()),
                (_, Some(error)) => io::Error::get_ref(error).map(|inner| inner as &(dyn Error + 'static)),
                _ => error.source(),
            };
        }
        false
    }
}

pub(crate) type RowStream = BoxStream<'static, Result<Rows, ReadError>>;

/// A file with what is needed to read it.
#[derive(Debug, Clone)]
pub(crate) struct OpenFile {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) file: SourceFile,
    /// Bytes of this source that have been read, for progress.
    pub(crate) bytes_read: Count,
}

impl OpenFile {
    /// Format and compression by content, unless the format is given.
    pub(crate) async fn sniff(&self, given: Option<Format>) -> Result<(Format, Compression), ReadError> {
        let head = match self.file.size {
            0 => Vec::new(),
            size => {
                let options = GetOptions { range: Some(GetRange::Bounded(0..HEAD.min(size))), ..GetOptions::default() };
                self.store.get_opts(&self.file.path, options).await?.bytes().await?.to_vec()
            }
        };
        let compression = Compression::of(&head);
        let plain = match compression {
            Compression::None => head,
            // A block may be longer than any head: bytes are read until there are plain ones.
            compression => {
                let bytes = self.store.get(&self.file.path).await?.into_stream().map_err(io::Error::other);
                let mut plain = Vec::new();
                match compression.plain(StreamReader::new(bytes)).take(HEAD).read_to_end(&mut plain).await {
                    Err(error) if plain.is_empty() => return Err(error.into()),
                    Ok(_) | Err(_) => plain,
                }
            }
        };
        let found = sniff(&plain, compression)?;
        match given {
            Some(given) if matches!(found, Format::Parquet | Format::Arrow) && given != found => {
                Err(ReadError::Content(format!("the file is {found:?}, not {given:?}")))
            }
            given => Ok((given.unwrap_or(found), compression)),
        }
    }

    /// The file's columns and their types, by looking at its beginning.
    pub(crate) async fn schema(&self, format: Option<Format>) -> Result<SchemaRef, ReadError> {
        let (format, compression) = self.sniff(format).await?;
        match format {
            Format::Parquet => parquet::schema(self).await,
            Format::Arrow => arrow_ipc::schema(self).await,
            Format::Jsonl => jsonl::schema(self, compression).await,
            Format::Csv => csv::schema(self, compression).await,
        }
    }

    /// The file's rows. The error, if any, is the last item.
    pub(crate) async fn rows(&self, columns: &Columns, format: Option<Format>) -> Result<RowStream, ReadError> {
        let (format, compression) = self.sniff(format).await?;
        match format {
            Format::Parquet => parquet::rows(self, columns).await,
            Format::Arrow => arrow_ipc::rows(self, columns).await,
            Format::Jsonl => jsonl::rows(self, columns, compression).await,
            Format::Csv => csv::rows(self, columns, compression).await,
        }
    }

    /// The whole file on this machine, for formats that are read from a file handle.
    async fn local(&self) -> Result<std::fs::File, ReadError> {
        use object_store::GetResultPayload;
        use std::io::{Seek, Write};

        let result = self.store.get(&self.file.path).await?;
        match result.payload {
            GetResultPayload::File(file, _) => Ok(file),
            GetResultPayload::Stream(mut stream) => {
                let mut file = tempfile::tempfile()?;
                while let Some(bytes) = TryStreamExt::try_next(&mut stream).await? {
                    file.write_all(&bytes)?;
                }
                file.rewind()?;
                Ok(file)
            }
        }
    }
}
