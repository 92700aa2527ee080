//! Reads one file as a stream of [`Rows`], whatever its format.

mod arrow_ipc;
mod columnar;
mod csv;
mod dialect;
mod exact;
mod jsonl;
mod lines;
mod open;
mod parquet;
mod records;
mod types;

pub(crate) use exact::{is_id, is_text};
pub(crate) use types::{ColumnType, FileTypes, Wanted};

use std::{
    error::Error,
    io, iter,
    sync::{Arc, OnceLock},
};

use ::arrow::{datatypes::FieldRef, error::ArrowError};
use ::parquet::errors::ParquetError;
use datafusion::physical_plan::metrics::Count;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use tokio::io::AsyncReadExt;
use tokio_util::io::StreamReader;

use polylance_schema::SourceFormat;

use crate::{
    batches::Rows,
    format::{Compression, HEAD, is_blank, named_format, sniff},
    location::{SourceFile, Store},
    source::CsvSpec,
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
    /// How CSV files are written.
    pub(crate) csv: CsvSpec,
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
    /// The file is another one than was listed.
    #[error("the file changed while it was read")]
    Changed,
}

impl ReadError {
    /// Whether the store failed, and not the file: others will fail as well, and this one is good when the store is.
    pub(crate) fn is_of_the_store(&self) -> bool {
        self.store_error().is_some_and(|error| !matches!(error, object_store::Error::NotFound { .. }))
    }

    /// The store's error, when it is one.
    pub(crate) fn store_error(&self) -> Option<&object_store::Error> {
        self.causes().find_map(|error| error.downcast_ref())
    }

    /// Whether the file is no longer the one that was listed: what was read of it does not go with the rest.
    pub(crate) fn is_change(&self) -> bool {
        use object_store::Error::{NotFound, Precondition};

        self.causes().any(|error| {
            matches!(error.downcast_ref(), Some(Self::Changed))
                || matches!(error.downcast_ref(), Some(NotFound { .. } | Precondition { .. }))
        })
    }

    /// The error and what is inside it, in whatever envelope.
    fn causes(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        let first: &(dyn Error + 'static) = self;
        iter::successors(Some(first), |&error| match (error.downcast_ref(), error.downcast_ref()) {
            (Some(ParquetError::External(inner)), _) => Some(inner.as_ref()),
            (_, Some(error)) => io::Error::get_ref(error).map(|inner| inner as &(dyn Error + 'static)),
            _ => error.source(),
        })
    }
}

pub(crate) type RowStream = BoxStream<'static, Result<Rows, ReadError>>;

/// A file with what is needed to read it.
#[derive(Debug, Clone)]
pub(crate) struct OpenFile {
    store: Store,
    pub(crate) file: SourceFile,
    /// Bytes of this source that have been read, for progress.
    pub(crate) bytes_read: Count,
    /// The format of the source's other files.
    others: Option<SourceFormat>,
    /// The file's tag, where the store's listing gives another one than its answers.
    tag: Arc<OnceLock<String>>,
}

impl OpenFile {
    pub(crate) fn new(store: Store, others: Option<SourceFormat>, file: SourceFile, bytes_read: Count) -> Self {
        Self { store, file, bytes_read, others, tag: Arc::default() }
    }

    /// Format and compression by content, unless the format is given; `None` for a text file without a row.
    async fn sniff(&self, given: Option<SourceFormat>) -> Result<Option<(SourceFormat, Compression)>, ReadError> {
        if let Some(reason) = &self.file.unreadable {
            return Err(ReadError::Content(reason.clone()));
        }
        let head = self.head().await?;
        let compression = Compression::of(&head);
        let plain = match compression {
            Compression::None => head,
            // A block may be longer than any head: bytes are read until there are plain ones.
            compression => {
                let bytes = self.get(None).await?.into_stream().map_err(io::Error::other);
                let mut plain = Vec::new();
                match compression.plain(StreamReader::new(bytes)).take(HEAD).read_to_end(&mut plain).await {
                    Err(error) if plain.is_empty() => return Err(error.into()),
                    Ok(_) | Err(_) => plain,
                }
            }
        };
        if is_blank(&plain) && (plain.len() as u64) < HEAD {
            let text = named_format(&self.file.uri).or(given).or(self.others);
            return match text {
                Some(SourceFormat::Jsonl | SourceFormat::Csv) => Ok(None),
                _ => Err(ReadError::Content("the file is empty".into())),
            };
        }
        let found = sniff(&plain, compression, given)?;
        match given {
            Some(given) if matches!(found, SourceFormat::Parquet | SourceFormat::Arrow) && given != found => {
                Err(ReadError::Content(format!("the file is {found:?}, not {given:?}")))
            }
            given => Ok(Some((given.unwrap_or(found), compression))),
        }
    }

    /// The file's format, its columns and their types.
    pub(crate) async fn types(
        &self,
        format: Option<SourceFormat>,
        csv: CsvSpec,
        wanted: &Wanted,
    ) -> Result<(SourceFormat, FileTypes), ReadError> {
        let Some((format, compression)) = self.sniff(format).await? else {
            return Err(ReadError::Content("the file is empty".into()));
        };
        let types = match format {
            SourceFormat::Parquet => types::declared(parquet::schema(self).await?.as_ref()),
            SourceFormat::Arrow => types::declared(arrow_ipc::schema(self).await?.as_ref()),
            SourceFormat::Jsonl => jsonl::types(self, compression, wanted).await?,
            SourceFormat::Csv => csv::types(self, compression, csv, wanted).await?,
        };
        Ok((format, types))
    }

    /// The file's rows. The error, if any, is the last item.
    pub(crate) async fn rows(&self, columns: &Columns, format: Option<SourceFormat>) -> Result<RowStream, ReadError> {
        let Some((format, compression)) = self.sniff(format).await? else { return Ok(stream::empty().boxed()) };
        let rows = match format {
            SourceFormat::Parquet => parquet::rows(self, columns).await?,
            SourceFormat::Arrow => arrow_ipc::rows(self, columns).await?,
            SourceFormat::Jsonl => jsonl::rows(self, columns, compression).await?,
            SourceFormat::Csv => csv::rows(self, columns, compression).await?,
        };
        Ok(if matches!(self.store, Store::Files) { self.clone().watched(rows) } else { rows })
    }
}
