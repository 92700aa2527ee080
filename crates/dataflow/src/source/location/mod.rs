//! From a URI to a store and the files in it.

mod folder;
mod glob;
mod hub;
pub(crate) mod iceberg;
pub(crate) mod lance;
pub(crate) mod listing;
pub(crate) mod object_address;
mod objects;
mod odd_keys;
pub(crate) mod stdin;
pub(crate) mod web;

use std::{ops::Range, sync::Arc};

use ::lance::Dataset;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, memory::InMemory, path::Path};
use polylance_iceberg::IcebergTable;
use polylance_schema::SourceFormat;

use self::{
    listing::{Listing, Scope},
    object_address::ObjectAddress,
    stdin::Spool,
    web::WebFile,
};
use super::{
    file::SourceFile,
    projection::ReadMode,
    uri::{BUILTIN, FILE, STDIN, redacted},
};
use crate::error::SourceError;

/// Where files are read from.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    /// This machine's disks.
    Files,
    /// A file that is compiled into the program.
    Memory(Arc<InMemory>),
    Objects(Arc<dyn ObjectStore>),
    /// A version of a Lance table, whose fragments are the files.
    Table(Arc<Dataset>),
    /// A snapshot of an Iceberg table.
    Iceberg(Arc<IcebergTable>),
    /// Standard input, in a temporary file.
    Stdin(Arc<Spool>),
    Web(Arc<WebFile>),
}

/// A store and the files that a URI names, sorted by address.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub(crate) store: Store,
    pub(crate) files: Arc<[SourceFile]>,
    /// Which files are unchanged, so that the table has their rows and only their ids are read; empty for none.
    pub(crate) unchanged: Arc<[bool]>,
    /// The part of the files that is read; `None` for all.
    pub(crate) part: Option<Arc<FilePart>>,
    /// Translations of the built-in corpus to read; `None` is all.
    pub(crate) codes: Option<Vec<String>>,
    /// Which files belong to the source, those that are gone included.
    pub(crate) scope: Scope,
    /// The format of the first readable file, once it is known.
    pub(crate) format: Option<SourceFormat>,
    /// Notes for the user about the files.
    pub(crate) notes: Vec<String>,
}

/// A run of the files of a location.
#[derive(Debug, Clone)]
pub(crate) struct FilePart {
    /// Their positions among all files.
    pub(crate) files: Range<usize>,
    pub(crate) mode: ReadMode,
    /// The files that are not read whole: at most the first and the last.
    pub(crate) partial: Vec<PartialFile>,
}

/// A Parquet file of which only some row groups are read, because a cut between two shards falls into it.
#[derive(Debug, Clone)]
pub(crate) struct PartialFile {
    /// Its position among all files.
    pub(crate) file: usize,
    pub(crate) row_groups: Range<usize>,
    /// The share of the file's bytes that they have.
    pub(crate) bytes: u64,
}

impl Location {
    /// Lists the files of a URI. The listing may take `memory` bytes.
    pub(crate) async fn find(uri: &str, memory: u64) -> Result<Self, SourceError> {
        if let Some(name) = uri.strip_prefix(BUILTIN) {
            return builtin(uri, name).await;
        }
        let (store, found) = match uri.split_once("://").map(|(scheme, _)| scheme) {
            Some("http" | "https") => {
                let (server, found) = web::find(uri).await?;
                (Store::Web(Arc::new(server)), found)
            }
            Some(_) if let Some(place) = ObjectAddress::parse(uri) => {
                let refuse = |message: String| SourceError::Uri { uri: uri.to_owned(), message };
                let table = if lance::is_named_table(uri) {
                    lance::find(uri, &place.public().map_err(refuse)?, memory).await?
                } else {
                    None
                };
                if let Some((table, found)) = table {
                    (Store::Table(Arc::new(table)), found)
                } else {
                    let (store, found) = objects::find(uri, place, memory).await?;
                    iceberg::or_files(Store::Objects(store), found, memory).await?
                }
            }
            Some("hf") => {
                let table = if lance::is_named_table(uri) { lance::find(uri, uri, memory).await? } else { None };
                if let Some((table, found)) = table {
                    (Store::Table(Arc::new(table)), found)
                } else {
                    let (store, found) = hub::find(uri, memory).await?;
                    (Store::Objects(store), found)
                }
            }
            Some("file") => local_url(uri, memory).await?,
            Some(scheme) => {
                let message = format!("the scheme `{scheme}://` is not supported");
                return Err(SourceError::Uri { uri: redacted(uri), message });
            }
            None if uri == STDIN => {
                let (spool, found) = stdin::find().await?;
                (Store::Stdin(spool), found)
            }
            None => {
                let refuse = |message: String| SourceError::Uri { uri: uri.to_owned(), message };
                let absolute = std::path::absolute(uri).map_err(|error| refuse(error.to_string()))?;
                let absolute = absolute.to_str().ok_or_else(|| refuse("the path is not UTF-8".to_owned()))?;
                local(uri, "", absolute.to_owned(), memory).await?
            }
        };
        if found.files.is_empty() {
            return Err(SourceError::NotFound { uri: redacted(uri) });
        }
        let Listing { files, scope, notes } = found;
        let (files, unchanged) = (Arc::from(files), Arc::from([]));
        Ok(Self { store, files, unchanged, part: None, codes: None, scope, format: None, notes })
    }

    /// The positions of the files that are read.
    pub(crate) fn read_files(&self) -> Range<usize> {
        self.part.as_ref().map_or(0..self.files.len(), |part| part.files.clone())
    }

    /// How much is read of each row of a file.
    pub(crate) fn mode(&self, file: usize) -> ReadMode {
        let is_unchanged = self.unchanged.get(file).copied().unwrap_or_default();
        let of_part = self.part.as_ref().map(|part| part.mode);
        if is_unchanged { ReadMode::IdsOnly } else { of_part.unwrap_or(ReadMode::Whole) }
    }

    /// The row groups that are read of a file that is not read whole.
    pub(crate) fn row_groups(&self, file: usize) -> Option<Range<usize>> {
        self.partial(file).map(|partial| partial.row_groups.clone())
    }

    pub(super) fn partial(&self, file: usize) -> Option<&PartialFile> {
        self.part.as_ref()?.partial.iter().find(|partial| partial.file == file)
    }

    /// The bytes of the files that are read, as stored; of a partial file those of its row groups.
    pub(crate) fn bytes(&self) -> u64 {
        let of_file = |file: usize| self.partial(file).map_or(self.files[file].size, |partial| partial.bytes);
        self.read_files().map(of_file).sum()
    }
}

/// The files that an absolute path names.
async fn local(uri: &str, prefix: &'static str, path: String, memory: u64) -> Result<(Store, Listing), SourceError> {
    if lance::is_local(&path).await
        && let Some((table, found)) = lance::find(&path, &format!("{prefix}{path}"), memory).await?
    {
        return Ok((Store::Table(Arc::new(table)), found));
    }
    let given = uri.to_owned();
    let walk = tokio::task::spawn_blocking(move || folder::find(&given, prefix, &path, memory));
    let found = walk.await.map_err(|error| SourceError::Uri { uri: uri.to_owned(), message: error.to_string() })??;
    iceberg::or_files(Store::Files, found, memory).await
}

/// The files that a `file://` address names: as it is written, or else percent-decoded.
async fn local_url(uri: &str, memory: u64) -> Result<(Store, Listing), SourceError> {
    let refuse = |message: &str| SourceError::Uri { uri: uri.to_owned(), message: message.to_owned() };
    let path = uri.strip_prefix(FILE).unwrap_or(uri);
    let path = path.strip_prefix("localhost").unwrap_or(path);
    if !path.starts_with('/') {
        return Err(refuse("the path is not absolute: write `file:///` before an absolute one"));
    }
    let (store, found) = local(uri, FILE, path.to_owned(), memory).await?;
    if found.files.is_empty() && path.contains('%') {
        let decoded = Path::from_url_path(path).map_err(|error| refuse(&error.to_string()))?;
        let slash = if path.ends_with('/') { "/" } else { "" };
        return local(uri, FILE, format!("/{decoded}{slash}"), memory).await;
    }
    Ok((store, found))
}

async fn builtin(uri: &str, name: &str) -> Result<Location, SourceError> {
    let refuse = |message: &str| SourceError::Uri { uri: uri.to_owned(), message: message.to_owned() };
    let (name, query) = name.split_once('?').unwrap_or((name, ""));
    if name != polylance_builtin::CORPUS {
        return Err(refuse("the built-in corpus is builtin:udhr"));
    }
    let codes = match query {
        "" => None,
        query => {
            let codes = query.strip_prefix("codes=").ok_or_else(|| refuse("expected builtin:udhr?codes=eng,fra,…"))?;
            Some(codes.split(',').map(|code| code.trim().to_owned()).collect())
        }
    };
    let storage = |source| SourceError::Storage { uri: uri.to_owned(), source };
    let store = InMemory::new();
    let path = Path::from("udhr.parquet");
    let bytes = polylance_builtin::udhr_parquet();
    store.put(&path, PutPayload::from_static(bytes)).await.map_err(storage)?;
    let file =
        SourceFile { uri: format!("{BUILTIN}{name}"), path, size: bytes.len() as u64, state: None, unreadable: None };
    Ok(Location {
        store: Store::Memory(Arc::new(store)),
        files: Arc::from([file]),
        unchanged: Arc::from([]),
        part: None,
        codes,
        scope: Scope::One,
        format: None,
        notes: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn names(uri: &str) -> Vec<String> {
        let files = Location::find(uri, 1 << 20).await.unwrap().files;
        files.iter().map(|file| file.uri.rsplit('/').next().unwrap().to_owned()).collect()
    }

    #[tokio::test]
    async fn a_file_a_folder_and_a_glob_are_found_in_order() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        for name in ["b.jsonl", "a.parquet", "sub/c.parquet", "_SUCCESS", ".hidden.parquet"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let root = folder.path().to_str().unwrap();
        assert_eq!(names(root).await, ["a.parquet", "b.jsonl", "c.parquet"]);
        assert_eq!(names(&format!("{root}/")).await, ["a.parquet", "b.jsonl", "c.parquet"]);
        assert_eq!(names(&format!("{root}/b.jsonl")).await, ["b.jsonl"]);
        assert_eq!(names(&format!("{root}/*.parquet")).await, ["a.parquet"]);
        assert_eq!(names(&format!("{root}/**/*.parquet")).await, ["a.parquet", "c.parquet"]);
        assert_eq!(names(&format!("file://{root}/*.parquet")).await, ["a.parquet"]);
        for none in [format!("{root}/*.csv"), format!("{root}/none"), "/does/not/exist".to_owned()] {
            assert!(matches!(Location::find(&none, 1 << 20).await, Err(SourceError::NotFound { .. })), "{none}");
        }
    }

    #[tokio::test]
    async fn names_with_percent_signs_and_any_script_are_read_literally() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        for name in ["a%20b.csv", "c d.csv", "données_日本.csv"] {
            fs::write(folder.path().join(name), "x").unwrap();
            assert_eq!(Location::find(&format!("{root}/{name}"), 1 << 20).await.unwrap().files.len(), 1, "{name}");
        }
        assert_eq!(names(&format!("{root}/*.csv")).await.len(), 3);
        assert_eq!(names(&format!("file://{root}/données*.csv")).await.len(), 1);
    }

    #[tokio::test]
    async fn a_listing_larger_than_its_memory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in 0..100 {
            fs::write(folder.path().join(format!("{name}.csv")), "id,text\n").unwrap();
        }
        let root = folder.path().to_str().unwrap();
        assert_eq!(Location::find(root, 100_000).await.unwrap().files.len(), 100);
        let error = Location::find(root, 10_000).await.unwrap_err();
        assert!(matches!(error, SourceError::Listing { files: 20..=60, .. }), "{error:?}");
    }

    #[tokio::test]
    async fn the_error_names_a_bad_address() {
        for uri in ["ftp://host/x", "builtin:nothing", "builtin:udhr?lang=eng"] {
            let error = Location::find(uri, 1 << 20).await.unwrap_err();
            assert!(matches!(error, SourceError::Uri { .. }) && error.to_string().contains(uri), "{error}");
        }
    }
}
