//! Reads the bytes of a file, and only those of the file that was listed.
//!
//! A file may be replaced while it is read. Half of one file and half of another give rows that neither has. So each
//! request sends the entity tag of the listing, each response is compared with it, and the metadata of a local file is
//! read again before any of its rows is returned.

use std::{
    fs::File,
    io,
    ops::Range,
    sync::{Arc, OnceLock},
};

use datafusion::physical_plan::metrics::Count;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    Attributes, Error, GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt,
};
use polylance_schema::SourceFormat;
use tokio::{io::AsyncReadExt, task::spawn_blocking};
use tokio_util::io::StreamReader;

use super::{
    error::ReadError,
    format::{Compression, HEAD_BYTES, is_blank, named_format, sniff},
    rows::RowStream,
    table::TableFile,
};
use crate::source::{
    file::{FileState, SourceFile},
    location::{Store, web},
};

/// Counts of the work of readers.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadCounts {
    /// The bytes of the source that were read, as stored.
    pub(crate) bytes_read: Count,
    /// Row groups that were not read because no row in them fulfils the condition.
    pub(crate) row_groups_pruned: Count,
}

/// A file with what is needed to read it.
#[derive(Debug, Clone)]
pub(crate) struct OpenFile {
    store: Store,
    pub(crate) file: SourceFile,
    pub(crate) counts: ReadCounts,
    /// The format of the source's first readable file.
    source_format: Option<SourceFormat>,
    /// The row groups to read of a Parquet file; `None` for all.
    pub(super) row_groups: Option<Range<usize>>,
    /// The file's tag, if the store's listing has a different one than its responses.
    tag: Arc<OnceLock<String>>,
}

/// The bytes of a file, read from any place.
pub(super) trait ReadSeek: io::Read + io::Seek + Send {}

impl<T: io::Read + io::Seek + Send> ReadSeek for T {}

impl OpenFile {
    pub(crate) fn new(store: Store, source_format: Option<SourceFormat>, file: SourceFile, counts: ReadCounts) -> Self {
        Self { store, file, counts, source_format, row_groups: None, tag: Arc::default() }
    }

    /// The file, of which only these row groups are read.
    pub(crate) fn with_row_groups(self, row_groups: Option<Range<usize>>) -> Self {
        Self { row_groups, ..self }
    }

    /// The table that the file is a part of.
    pub(super) fn table(&self, given: Option<SourceFormat>) -> Result<Option<TableFile<'_>>, ReadError> {
        let (table, kind) = match &self.store {
            Store::Table(table) => (TableFile::Lance(table), "a Lance table"),
            Store::Iceberg(table) => (TableFile::Iceberg(table), "an Iceberg table"),
            _ => return Ok(None),
        };
        if let Some(format) = given {
            return Err(ReadError::Content(format!("{kind} is not {format:?}: leave out `format` in [source]")));
        }
        match &self.file.unreadable {
            Some(reason) => Err(ReadError::Content(reason.clone())),
            None => Ok(Some(table)),
        }
    }

    /// Format and compression by content, unless the format is given; `None` for a text file without a row.
    pub(super) async fn sniff(
        &self,
        given: Option<SourceFormat>,
    ) -> Result<Option<(SourceFormat, Compression)>, ReadError> {
        if let Some(reason) = &self.file.unreadable {
            return Err(ReadError::Content(reason.clone()));
        }
        let head = self.head().await?;
        let compression = Compression::of(&head);
        let plain = match compression {
            Compression::None => head,
            // A compressed block may be longer than the head: bytes are read until some are decompressed.
            compression => {
                let bytes = self.get(None).await?.into_stream().map_err(io::Error::other);
                let mut plain = Vec::new();
                match compression.plain(StreamReader::new(bytes)).take(HEAD_BYTES).read_to_end(&mut plain).await {
                    Err(error) if plain.is_empty() => return Err(error.into()),
                    Ok(_) | Err(_) => plain,
                }
            }
        };
        if is_blank(&plain) && (plain.len() as u64) < HEAD_BYTES {
            let text = named_format(&self.file.uri).or(given).or(self.source_format);
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

    /// The file's bytes, or some of them.
    pub(super) async fn get(&self, range: Option<Range<u64>>) -> Result<GetResult, ReadError> {
        match &self.store {
            Store::Files => self.get_local(range).await,
            Store::Memory(store) => Ok(store.get_opts(&self.file.path, options(range)).await?),
            Store::Objects(store) => self.get_object(store, range).await,
            Store::Stdin(spool) => Ok(spool.get(range)),
            Store::Table(_) | Store::Iceberg(_) => {
                Err(ReadError::Content("a part of a table is not read as a file".to_owned()))
            }
            Store::Web(server) => {
                let tag = self.file.state.as_ref().and_then(FileState::strong_tag);
                let options = GetOptions { if_match: tag.map(str::to_owned), ..options(range) };
                let result = server.store.get_opts(&self.file.path, options).await?;
                let is_same = self.file.state.as_ref().is_none_or(|state| {
                    let same_tag = state.e_tag.is_none() || state.e_tag == result.meta.e_tag;
                    let modified = web::modified_time(result.meta.last_modified);
                    same_tag && (state.modified.is_none() || state.modified == modified)
                });
                let same_size = !server.sized || result.meta.size == self.file.size;
                if is_same && same_size { Ok(result) } else { Err(ReadError::Changed) }
            }
        }
    }

    async fn get_local(&self, range: Option<Range<u64>>) -> Result<GetResult, ReadError> {
        let path = self.file.local_path().to_owned();
        let opened = spawn_blocking(move || {
            let file = File::open(&path)?;
            let metadata = file.metadata()?;
            Ok::<_, io::Error>((path, file, metadata))
        });
        let (path, file, metadata) = match opened.await.map_err(io::Error::other)? {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Changed),
            opened => opened?,
        };
        if self.file.state.as_ref().is_some_and(|state| *state != FileState::of_local(&metadata)) {
            return Err(ReadError::Changed);
        }
        let size = self.file.size;
        let meta = ObjectMeta {
            location: self.file.path.clone(),
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size,
            e_tag: None,
            version: None,
        };
        let payload = GetResultPayload::File(file, path);
        let range = range.unwrap_or(0..size);
        Ok(GetResult {
            payload,
            meta,
            range,
            attributes: Attributes::default(),
            extensions: object_store::Extensions::default(),
        })
    }

    async fn get_object(
        &self,
        store: &Arc<dyn ObjectStore>,
        range: Option<Range<u64>>,
    ) -> Result<GetResult, ReadError> {
        let state = self.file.state.as_ref();
        let tag = || self.tag.get().map(String::as_str).or_else(|| state.and_then(FileState::strong_tag));
        let version = state.and_then(|state| state.version.clone());
        let get = async || {
            let options =
                GetOptions { if_match: tag().map(quoted), version: version.clone(), ..options(range.clone()) };
            let result = store.get_opts(&self.file.path, options).await?;
            let same = result.meta.size == self.file.size && Self::is_tagged(tag(), result.meta.e_tag.as_deref());
            if same { Ok(result) } else { Err(ReadError::Changed) }
        };
        match get().await {
            Err(error) if error.is_change() && self.tag.get().is_none() => {
                self.refresh_tag(store).await?;
                get().await
            }
            got => got,
        }
    }

    /// Replaces the tag of the listing by the object's own if they differ and the object did not change.
    async fn refresh_tag(&self, store: &Arc<dyn ObjectStore>) -> Result<(), ReadError> {
        let head = match store.head(&self.file.path).await {
            Err(Error::NotFound { .. }) => return Err(ReadError::Changed),
            head => head?,
        };
        let listed = self.file.state.as_ref().and_then(|state| state.modified);
        let is_same = head.size == self.file.size
            && listed.is_some_and(|listed| listed.timestamp() == head.last_modified.timestamp());
        match head.e_tag {
            Some(tag) if is_same => {
                // A concurrent request may have set the tag first: that one counts.
                let _ = self.tag.set(tag);
                Ok(())
            }
            _ => Err(ReadError::Changed),
        }
    }

    fn is_tagged(expected: Option<&str>, found: Option<&str>) -> bool {
        expected.zip(found).is_none_or(|(expected, found)| expected.trim_matches('"') == found.trim_matches('"'))
    }

    /// The file's first bytes.
    pub(super) async fn head(&self) -> Result<Vec<u8>, ReadError> {
        let (size, ranges) = match &self.store {
            Store::Web(server) if !server.sized => (HEAD_BYTES, false),
            Store::Web(server) => (self.file.size, server.ranges),
            _ => (self.file.size, true),
        };
        if size == 0 {
            return Ok(Vec::new());
        }
        if ranges {
            return Ok(self.get(Some(0..HEAD_BYTES.min(size))).await?.bytes().await?.to_vec());
        }
        let mut stream = self.get(None).await?.into_stream();
        let mut head = Vec::new();
        while (head.len() as u64) < HEAD_BYTES {
            let Some(bytes) = stream.try_next().await? else { break };
            head.extend_from_slice(&bytes);
        }
        head.truncate(HEAD_BYTES as usize);
        Ok(head)
    }

    /// Whether parts of the file can be requested, and are sure to be of one version of it.
    pub(super) fn has_parts(&self) -> bool {
        match &self.store {
            Store::Web(server) => {
                server.ranges && self.file.state.as_ref().is_some_and(|state| state.strong_tag().is_some())
            }
            _ => true,
        }
    }

    /// The whole file, for formats that are read from any place in it.
    pub(super) async fn seekable(&self) -> Result<Box<dyn ReadSeek>, ReadError> {
        match &self.store {
            Store::Stdin(spool) => Ok(Box::new(spool.reader(0))),
            _ => Ok(Box::new(self.local().await?)),
        }
    }

    /// The whole file as a local one, for formats that are read from a file handle.
    pub(super) async fn local(&self) -> Result<File, ReadError> {
        use std::io::{Seek, Write};

        let result = self.get(None).await?;
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

    /// The rows; those of a local file only as long as its metadata are those of the listing. A file that is written
    /// while it is read may also look damaged, so the metadata are checked before an error too.
    pub(super) fn watched(self, rows: RowStream) -> RowStream {
        if !matches!(self.store, Store::Files) {
            return rows;
        }
        let ended = stream::once(async { None });
        rows.map(Some)
            .chain(ended)
            .then(move |rows| {
                let (path, state) = (self.file.local_path().to_owned(), self.file.state.clone());
                async move {
                    let metadata = spawn_blocking(move || std::fs::metadata(path)).await;
                    let is_same = match (metadata, state) {
                        (Ok(Ok(metadata)), Some(state)) => state == FileState::of_local(&metadata),
                        _ => false,
                    };
                    if is_same { rows } else { Some(Err(ReadError::Changed)) }
                }
            })
            .filter_map(async |rows| rows)
            .boxed()
    }
}

fn options(range: Option<Range<u64>>) -> GetOptions {
    GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() }
}

/// A tag for the header `If-Match`; the listings of some stores omit the quotes.
fn quoted(tag: &str) -> String {
    if tag.starts_with('"') { tag.to_owned() } else { format!("\"{tag}\"") }
}
