//! Where a source is: a URI becomes an object store and the files in it.

use std::{ffi::OsString, fmt::Display, path::Path as FilePath, sync::Arc};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use globset::GlobBuilder;
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, local::LocalFileSystem, memory::InMemory, path::Path,
};
use url::Url;

use crate::SourceError;

/// One file of a source.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    /// Its address, as the quarantine names it.
    pub(crate) uri: String,
    pub(crate) path: Path,
    /// Bytes as stored.
    pub(crate) size: u64,
    /// What else the store says about its content; `None` when that cannot change.
    pub(crate) state: Option<FileState>,
    /// Whether the table has its rows, so that only their ids are read.
    pub(crate) trusted: bool,
}

/// By which a file is known to be the one that was read before.
#[derive(Debug, Clone)]
pub(crate) struct FileState {
    pub(crate) modified: DateTime<Utc>,
    pub(crate) e_tag: Option<String>,
    pub(crate) version: Option<String>,
}

impl SourceFile {
    /// Whether the file is reached over a network.
    pub(crate) fn is_remote(&self) -> bool {
        self.uri.contains("://") && !self.uri.starts_with("file://")
    }
}

/// A store and the files that a URI names, sorted by path.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) files: Vec<SourceFile>,
    /// Translations of the built-in corpus to read; `None` is all.
    pub(crate) codes: Option<Vec<String>>,
    /// The URI as it was understood: what stands before paths in a file's address, and the path or glob.
    pub(crate) named: (String, String),
}

const BUILTIN: &str = "builtin:";

impl Location {
    pub(crate) async fn find(uri: &str) -> Result<Self, SourceError> {
        if let Some(name) = uri.strip_prefix(BUILTIN) {
            return builtin(uri, name).await;
        }
        let (store, path, base) = if uri.contains("://") { remote(uri).await? } else { local(uri)? };
        let files = if path.contains(['*', '?', '[', '{']) {
            globbed(uri, &*store, &path, &base).await?
        } else {
            listed(uri, &*store, &path, &base).await?
        };
        if files.is_empty() {
            return Err(SourceError::NotFound { uri: uri.to_owned() });
        }
        Ok(Self { store, files, codes: None, named: (base, path) })
    }
}

/// A store, the path in it, and what stands before the path in a file's address.
type Place = (Arc<dyn ObjectStore>, String, String);

fn local(path: &str) -> Result<Place, SourceError> {
    let refuse = |message: String| SourceError::Uri { uri: path.to_owned(), message };
    let absolute = std::path::absolute(path).map_err(|error| refuse(error.to_string()))?;
    let absolute = absolute.to_str().ok_or_else(|| refuse("the path is not UTF-8".to_owned()))?;
    Ok((Arc::new(LocalFileSystem::new()), absolute.trim_start_matches('/').to_owned(), String::new()))
}

/// Stores that Lance reaches as well.
const OBJECT_STORES: [&str; 3] = ["s3", "gs", "az"];

async fn remote(uri: &str) -> Result<Place, SourceError> {
    let refuse = |message: String| SourceError::Uri { uri: uri.to_owned(), message };
    // In the address of an object `?` and `#` are characters of its name or of a glob.
    let literal = if uri.starts_with("http") { uri.to_owned() } else { uri.replace('?', "%3F").replace('#', "%23") };
    let mut url = Url::parse(&literal).map_err(|error| refuse(error.to_string()))?;
    let refuse_quoted = |error: &dyn Display| refuse(without_secrets(&error.to_string()));
    let (store, path) = if OBJECT_STORES.contains(&url.scheme()) {
        // The same way as to the table: one set of keys, profiles and endpoints opens both.
        let root = &url[..url::Position::BeforePath];
        let (store, _) = lance_io::object_store::ObjectStore::from_uri(root).await.map_err(|e| refuse_quoted(&e))?;
        let path = Path::from_url_path(url.path()).map_err(|error| refuse(error.to_string()))?;
        (Arc::clone(&store.inner), path)
    } else {
        let (store, path) = object_store::parse_url_opts(&url, options(&url)).map_err(|e| refuse_quoted(&e))?;
        (Arc::from(store), path)
    };
    // An address is written to the quarantine, a password in it is not. Not every kind of URL can have one.
    let _ = (url.set_username(""), url.set_password(None));
    Ok((store, path.to_string(), url[..url::Position::BeforePath].to_owned()))
}

/// What the environment says about the store of a URL, as the stores' own tools read it.
fn options(url: &Url) -> Vec<(String, String)> {
    if url.scheme() == "http" {
        return vec![("allow_http".to_owned(), "true".to_owned())];
    }
    // Without the prefix `BUCKET` or `TIMEOUT` of something else would count.
    let own = |key: &str| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| key.starts_with(prefix));
    let text = |(key, value): (OsString, OsString)| Some((key.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).filter(|(key, _)| own(key)).collect()
}

/// The stores' messages may quote an option's value.
fn without_secrets(message: &str) -> String {
    message.split(['\n', '=']).next().unwrap_or_default().to_owned()
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
        SourceFile { uri: format!("{BUILTIN}{name}"), path, size: bytes.len() as u64, state: None, trusted: false };
    Ok(Location { store: Arc::new(store), files: vec![file], codes, named: (String::new(), String::new()) })
}

/// The file itself, or everything below the folder.
async fn listed(uri: &str, store: &dyn ObjectStore, path: &str, base: &str) -> Result<Vec<SourceFile>, SourceError> {
    let storage = |source| SourceError::Storage { uri: uri.to_owned(), source };
    let parsed = parse(uri, path)?;
    if !uri.ends_with('/') && !path.is_empty() {
        match store.head(&parsed).await {
            Ok(meta) => return Ok(vec![file(base, meta)]),
            // A web server has files and no list of them.
            Err(object_store::Error::NotFound { .. }) if base.starts_with("http") => return Ok(Vec::new()),
            // A folder has no head; some stores say so in other words than "not found".
            Err(object_store::Error::NotFound { .. } | object_store::Error::Generic { .. }) => {}
            Err(error) => return Err(storage(error)),
        }
    }
    let mut files: Vec<SourceFile> = store
        .list(Some(&parsed))
        .map_ok(|meta| file(base, meta))
        // Some stores have an empty object in the place of a folder.
        .try_filter(|file| futures::future::ready(file.path != parsed && !hidden(&file.path, &parsed)))
        .try_collect()
        .await
        .map_err(storage)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Everything below the part without wildcards that matches the whole.
async fn globbed(uri: &str, store: &dyn ObjectStore, path: &str, base: &str) -> Result<Vec<SourceFile>, SourceError> {
    let refuse = |message: String| SourceError::Uri { uri: uri.to_owned(), message };
    let glob = GlobBuilder::new(path).literal_separator(true).build().map_err(|error| refuse(error.to_string()))?;
    let matcher = glob.compile_matcher();
    let fixed: Vec<&str> = path.split('/').take_while(|part| !part.contains(['*', '?', '[', '{'])).collect();
    let below = listed(&format!("{uri}/"), store, &fixed.join("/"), base).await?;
    Ok(below.into_iter().filter(|file| matcher.is_match(FilePath::new(file.path.as_ref()))).collect())
}

fn parse(uri: &str, path: &str) -> Result<Path, SourceError> {
    Path::parse(path).map_err(|error| SourceError::Uri { uri: uri.to_owned(), message: error.to_string() })
}

fn file(base: &str, meta: ObjectMeta) -> SourceFile {
    let ObjectMeta { location: path, last_modified: modified, size, e_tag, version } = meta;
    let state = Some(FileState { modified, e_tag, version });
    SourceFile { uri: format!("{base}/{path}"), path, size, state, trusted: false }
}

/// Files and folders that writers use for themselves: `_SUCCESS`, `.crc`, `_temporary/`.
fn hidden(path: &Path, below: &Path) -> bool {
    let inner = path.as_ref().strip_prefix(below.as_ref()).unwrap_or_else(|| path.as_ref());
    inner.split('/').any(|part| part.starts_with(['_', '.']))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn names(uri: &str) -> Vec<String> {
        let files = Location::find(uri).await.unwrap().files;
        files.iter().map(|file| file.path.filename().unwrap().to_owned()).collect()
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
            assert!(matches!(Location::find(&none).await, Err(SourceError::NotFound { .. })), "{none}");
        }
    }

    #[tokio::test]
    async fn names_with_percent_signs_and_any_script_are_taken_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        for name in ["a%20b.csv", "c d.csv", "données_日本.csv"] {
            fs::write(folder.path().join(name), "x").unwrap();
            assert_eq!(Location::find(&format!("{root}/{name}")).await.unwrap().files.len(), 1, "{name}");
        }
        assert_eq!(names(&format!("{root}/*.csv")).await.len(), 3);
        assert_eq!(names(&format!("file://{root}/données*.csv")).await.len(), 1);
    }

    #[tokio::test]
    async fn the_address_of_a_file_has_no_password() {
        for (uri, path, base) in [
            ("http://user:secret@host:8080/a/é.csv", "a/é.csv", "http://host:8080"),
            ("file:///tmp/日本/x?.csv", "tmp/日本/x?.csv", "file://"),
        ] {
            let place = remote(uri).await.unwrap();
            assert_eq!((place.1.as_str(), place.2.as_str()), (path, base));
        }
    }

    #[tokio::test]
    async fn a_bad_address_is_named() {
        for uri in ["ftp://host/x", "builtin:nothing", "builtin:udhr?lang=eng"] {
            let error = Location::find(uri).await.unwrap_err();
            assert!(matches!(error, SourceError::Uri { .. }) && error.to_string().contains(uri), "{error}");
        }
    }
}
