//! The files of a table's newest version, for a copy of it.

use std::{collections::HashSet, sync::Arc};

use futures::TryStreamExt;
use lance::{Dataset, index::DatasetIndexExt, io::ObjectStoreParams};
use lance_io::object_store::ObjectStore;
use lance_table::io::deletion::relative_deletion_file_path;
use object_store::path::Path;

use super::open;
use crate::error::SinkError;

/// The folder of indices; each index has a folder of its own in it.
const INDICES: &str = "_indices";

/// The files of one version of a table, with its indices.
#[derive(Debug, Clone)]
pub struct VersionFiles {
    /// The store with the files.
    pub store: Arc<dyn object_store::ObjectStore>,
    /// The files.
    pub files: Vec<VersionFile>,
    /// The version.
    pub version: u64,
}

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionFile {
    /// Its path in the table.
    pub name: String,
    /// Its path in the store.
    pub path: Path,
    /// Its size in bytes.
    pub size: u64,
    /// Whether the name has a random part, so that no other table or version has a file of this name.
    pub is_unique: bool,
}

/// The files of the newest version of the table at `uri`, and of its indices.
///
/// # Errors
/// [`SinkError::NoTable`], [`SinkError::FilesGone`] when a cleanup has removed one of them meanwhile,
/// [`SinkError::Elsewhere`] when the version refers to files outside the table, [`SinkError::Storage`].
pub async fn version_files(uri: &str) -> Result<VersionFiles, SinkError> {
    let dataset = open::existing(uri).await?;
    let failed = || SinkError::storage(uri, "listing the files of the table");
    if !dataset.manifest().base_paths.is_empty() {
        return Err(SinkError::Elsewhere { uri: uri.to_owned() });
    }
    let mut missing = named_files(&dataset);
    let indices = dataset.load_indices().await.map_err(failed())?;
    let indices: HashSet<String> = indices.iter().map(|index| index.uuid.to_string()).collect();
    let params = ObjectStoreParams::default();
    let store = ObjectStore::from_uri_and_params(Arc::default(), uri, &params).await;
    let (store, base) = store.map_err(failed())?;
    let mut listed = store.read_dir_all(&base, None);
    let mut files = Vec::new();
    while let Some(file) = listed.try_next().await.map_err(failed())? {
        let Some(name) = file.location.as_ref().strip_prefix(base.as_ref()) else { continue };
        let name = name.trim_start_matches('/').to_owned();
        let in_index = name.strip_prefix(INDICES).and_then(|rest| rest.split('/').nth(1));
        if !missing.remove(&name) && !in_index.is_some_and(|index| indices.contains(index)) {
            continue;
        }
        let is_unique = !name.starts_with("_versions/") && !name.starts_with("_deletions/");
        files.push(VersionFile { name, path: file.location, size: file.size, is_unique });
    }
    if let Some(file) = missing.into_iter().next() {
        return Err(SinkError::FilesGone { uri: uri.to_owned(), file });
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(VersionFiles { store: Arc::clone(&store.inner), files, version: dataset.version_id() })
}

/// The names of the files that a version refers to, except those of indices.
fn named_files(dataset: &Dataset) -> HashSet<String> {
    let manifest = dataset.manifest();
    let mut names = HashSet::new();
    for fragment in manifest.fragments.iter() {
        names.extend(fragment.files.iter().map(|file| format!("data/{}", file.path)));
        let deletions = fragment.deletion_file.as_ref();
        names.extend(deletions.map(|file| relative_deletion_file_path(fragment.id, file)));
    }
    names.extend(manifest.transaction_file.as_ref().map(|file| format!("_transactions/{file}")));
    names.extend(dataset.manifest_location().path.filename().map(|file| format!("_versions/{file}")));
    names
}

/// The different texts of a column of the newest version, in order; none when there is no such column of texts, or when
/// it has more than `max`.
///
/// # Errors
/// [`SinkError::NoTable`], [`SinkError::Storage`].
pub async fn distinct_texts(uri: &str, column: &str, max: usize) -> Result<Vec<String>, SinkError> {
    use arrow::{array::AsArray, datatypes::DataType};

    let dataset = open::existing(uri).await?;
    let failed = || SinkError::storage(uri, "reading a column");
    if dataset.schema().field(column).is_none_or(|field| field.data_type() != DataType::Utf8) {
        return Ok(Vec::new());
    }
    let mut scanner = dataset.scan();
    scanner.project(&[column]).map_err(failed())?;
    let mut rows = Box::pin(scanner.try_into_stream()).await.map_err(failed())?;
    let mut found = std::collections::BTreeSet::new();
    while let Some(batch) = rows.try_next().await.map_err(failed())? {
        for text in batch.column(0).as_string::<i32>().iter().flatten() {
            if !found.contains(text) {
                found.insert(text.to_owned());
            }
        }
        if found.len() > max {
            return Ok(Vec::new());
        }
    }
    Ok(found.into_iter().collect())
}
