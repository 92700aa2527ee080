//! The manifests of a table, and whether the newest can be read.

use futures::TryStreamExt;
use lance::io::ObjectStore;
use lance_table::io::{commit::ManifestNamingScheme, manifest::read_manifest};
use object_store::{ObjectStoreExt as _, path::Path};

use super::synced_store;
use crate::error::SinkError;

/// A manifest file.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) version: u64,
    pub(crate) path: Path,
}

/// The error that names the damaged newest manifest; `None` when it is intact, or when it cannot be read from the
/// store.
pub async fn find_damage(uri: &str) -> Option<SinkError> {
    let (store, base) = synced_store::store(uri).await.ok()?;
    let newest = newest(&store, &base).await.ok()?.into_iter().next()?;
    let problem = problem(&store, &newest).await.ok()??;
    Some(damaged(uri, &store, &newest, problem))
}

pub(crate) fn damaged(uri: &str, store: &ObjectStore, manifest: &Manifest, problem: String) -> SinkError {
    let file = shown(store, &manifest.path);
    SinkError::Damaged { uri: uri.to_owned(), version: manifest.version, file, problem }
}

/// The table's manifests, the newest version first.
pub(crate) async fn newest(store: &ObjectStore, base: &Path) -> lance::Result<Vec<Manifest>> {
    let files: Vec<_> = match store.read_dir_all(&base.clone().join("_versions"), None).try_collect().await {
        Ok(files) => files,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut manifests: Vec<Manifest> = files
        .into_iter()
        .filter_map(|file: object_store::ObjectMeta| {
            let name = file.location.filename()?;
            let version = ManifestNamingScheme::detect_scheme(name)?.parse_version(name)?;
            Some(Manifest { version, path: file.location })
        })
        .collect();
    manifests.sort_unstable_by_key(|manifest| std::cmp::Reverse(manifest.version));
    Ok(manifests)
}

/// The problem with the contents of a manifest; `None` when they are intact. A failure of the store is an error.
pub(crate) async fn problem(store: &ObjectStore, manifest: &Manifest) -> lance::Result<Option<String>> {
    let bytes = store.inner.get(&manifest.path).await?.bytes().await?;
    if bytes.is_empty() {
        return Ok(Some("has 0 bytes".to_owned()));
    }
    let Some(footer) = bytes.len().checked_sub(16).filter(|_| bytes.ends_with(lance_table::format::MAGIC)) else {
        return Ok(Some(format!("ends after {} bytes without its end mark", bytes.len())));
    };
    // Lance subtracts this from the file's size without a check.
    let begin = bytes[footer..].first_chunk::<8>().map(|bytes| i64::from_le_bytes(*bytes));
    if begin.and_then(|begin| usize::try_from(begin).ok()).is_none_or(|begin| begin + 4 > footer) {
        return Ok(Some("refers to a position outside of the file".to_owned()));
    }
    // From memory, so that only the contents can fail.
    let (memory, path, size) = (ObjectStore::memory(), Path::from("manifest"), bytes.len() as u64);
    memory.inner.put(&path, bytes.into()).await?;
    Ok(match Box::pin(read_manifest(&memory, &path, Some(size))).await {
        // A format that this version does not know.
        Ok(_) | Err(lance::Error::NotSupported { .. }) => None,
        Err(error) => Some(format!("cannot be read: {error}")),
    })
}

/// A path as users of its store write it.
pub(crate) fn shown(store: &ObjectStore, path: &Path) -> String {
    if store.is_local() { format!("/{path}") } else { path.to_string() }
}
