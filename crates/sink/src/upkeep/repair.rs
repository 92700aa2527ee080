//! A newest version that cannot be read, as a power loss leaves it on a disk.
//!
//! Lance finds the latest version by the name of its manifest and never looks past one that is empty or cut short. Such
//! a manifest is set aside under another name, after which the version before is the latest. Nothing is deleted.

use std::collections::HashMap;

use futures::TryStreamExt;
use lance::{dataset::builder::DatasetBuilder, io::ObjectStore};
use lance_table::{
    format::pb,
    io::{commit::ManifestNamingScheme, manifest::read_manifest},
};
use object_store::{ObjectStoreExt as _, path::Path};
use prost::Message;
use serde::Serialize;

use crate::{SinkError, synced, target::properties};

/// What is put behind the name of a manifest that is set aside.
const ASIDE: &str = ".damaged";

/// A manifest that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// The version that could not be read.
    pub version: u64,
    /// Its manifest, under the name it has now.
    pub file: String,
    /// What is wrong with it.
    pub problem: String,
    /// What the version was: each transaction that was made on the version before it. More than one when others were in
    /// its way.
    pub transactions: Vec<String>,
    /// The version that is the latest now.
    pub current: u64,
    /// When that one was committed, by the clock of who did.
    pub committed: chrono::DateTime<chrono::Utc>,
    /// Its rows.
    pub rows: u64,
}

/// A manifest by its name.
#[derive(Debug, Clone)]
struct Manifest {
    version: u64,
    path: Path,
}

/// The error that says which manifest is damaged; `None` when the newest is whole, or cannot be looked at.
pub async fn damage(uri: &str) -> Option<SinkError> {
    let (store, base) = synced::store(uri).await.ok()?;
    let newest = newest(&store, &base).await.ok()?.into_iter().next()?;
    let problem = problem(&store, &newest).await.ok()??;
    Some(damaged(uri, &store, &newest, problem))
}

fn damaged(uri: &str, store: &ObjectStore, manifest: &Manifest, problem: String) -> SinkError {
    let file = shown(store, &manifest.path);
    SinkError::Damaged { uri: uri.to_owned(), version: manifest.version, file, problem }
}

/// Sets the manifest of the newest version of the table at `uri` aside when it is damaged; `None` when it is whole, or
/// there is no table.
///
/// # Errors
/// [`SinkError::Damaged`] when the version before is damaged too, or there is none; [`SinkError::Storage`].
pub async fn repair(uri: &str) -> Result<Option<Repaired>, SinkError> {
    let repairing = || SinkError::storage(uri, "repairing the table");
    let (store, base) = synced::store(uri).await.map_err(repairing())?;
    let manifests = newest(&store, &base).await.map_err(repairing())?;
    let Some(head) = manifests.first() else { return Ok(None) };
    let Some(problem) = problem(&store, head).await.map_err(repairing())? else { return Ok(None) };
    let Some(before) = manifests.get(1) else {
        return Err(damaged(uri, &store, head, format!("{problem}, and there is no version before it")));
    };
    if let Some(earlier) = self::problem(&store, before).await.map_err(repairing())? {
        let file = shown(&store, &before.path);
        return Err(damaged(
            uri,
            &store,
            head,
            format!("{problem}, and so is the version before it: {file} {earlier}"),
        ));
    }
    let load = DatasetBuilder::from_uri(uri).with_version(before.version).load();
    let dataset = Box::pin(load).await.map_err(repairing())?;
    let rows = Box::pin(dataset.count_rows(None)).await.map_err(repairing())? as u64;
    let transactions = transactions(&store, &base, before.version).await.map_err(repairing())?;
    let aside = Path::from(format!("{}{ASIDE}", head.path));
    store.inner.rename_if_not_exists(&head.path, &aside).await.map_err(|error| repairing()(error.into()))?;
    Ok(Some(Repaired {
        version: head.version,
        file: shown(&store, &aside),
        problem,
        transactions,
        current: before.version,
        committed: dataset.version().timestamp,
        rows,
    }))
}

/// The table's manifests, the newest version first.
async fn newest(store: &ObjectStore, base: &Path) -> lance::Result<Vec<Manifest>> {
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

/// What is wrong with the contents of a manifest. A store that fails is an error, and says nothing about them.
async fn problem(store: &ObjectStore, manifest: &Manifest) -> lance::Result<Option<String>> {
    let bytes = store.inner.get(&manifest.path).await?.bytes().await?;
    if bytes.is_empty() {
        return Ok(Some("has 0 bytes".to_owned()));
    }
    let Some(footer) = bytes.len().checked_sub(16).filter(|_| bytes.ends_with(lance_table::format::MAGIC)) else {
        return Ok(Some(format!("ends after {} bytes without the mark of its end", bytes.len())));
    };
    // Lance subtracts this from the file's size without a look.
    let begin = bytes[footer..].first_chunk::<8>().map(|bytes| i64::from_le_bytes(*bytes));
    if begin.and_then(|begin| usize::try_from(begin).ok()).is_none_or(|begin| begin + 4 > footer) {
        return Ok(Some("names a place for its contents that is not in it".to_owned()));
    }
    // From memory, so that what fails is the contents and not the store.
    let (memory, path, size) = (ObjectStore::memory(), Path::from("manifest"), bytes.len() as u64);
    memory.inner.put(&path, bytes.into()).await?;
    Ok(match Box::pin(read_manifest(&memory, &path, Some(size))).await {
        // A format that this program does not know.
        Ok(_) | Err(lance::Error::NotSupported { .. }) => None,
        Err(error) => Some(format!("cannot be read: {error}")),
    })
}

/// The transactions that were made on `version`: what the damaged one was, and what others tried.
async fn transactions(store: &ObjectStore, base: &Path, version: u64) -> lance::Result<Vec<String>> {
    let folder = base.clone().join("_transactions");
    let mut names = match store.read_dir(folder.clone()).await {
        Ok(names) => names,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error),
    };
    let prefix = format!("{version}-");
    names.retain(|name| name.starts_with(&prefix));
    names.sort_unstable();
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let bytes = store.inner.get(&folder.clone().join(name.as_str())).await?.bytes().await?;
        let made = pb::Transaction::decode(bytes).ok().map(|transaction| made(&transaction.transaction_properties));
        found.push(made.filter(|made| !made.is_empty()).unwrap_or(name));
    }
    Ok(found)
}

/// A commit in words.
fn made(said: &HashMap<String, String>) -> String {
    let of = |key: &str, name: &str| said.get(key).map(|value| format!("{value} {name}"));
    let run = said.get(properties::RUN_ID).map(|run| format!("of run {run}"));
    let parts = [of(properties::DOCUMENTS, "documents"), of(properties::CHUNKS, "rows"), run];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A path as its store's user knows it.
fn shown(store: &ObjectStore, path: &Path) -> String {
    if store.is_local() { format!("/{path}") } else { path.to_string() }
}
