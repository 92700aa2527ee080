//! Finds and removes files that no version of the table refers to.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use lance::{
    Dataset,
    dataset::cleanup::{CleanupFileKind, CleanupPolicy},
    io::{ObjectStore, ObjectStoreParams},
};
use object_store::path::Path;

use super::policy::Mode;
use crate::{error::SinkError, table};

/// The folders of what a writer leaves behind when it is killed before its commit. Files of an index are left to
/// Lance, which removes them after a week: a build may take hours.
const WRITTEN: [&str; 4] = ["data", "_deletions", "_transactions", "_versions"];

/// Looks at the table again this often when a writer is at work, then leaves it.
const LOOKS: usize = 3;

/// What [`remove_unnamed`] did.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Files that could not be removed.
    pub(super) failed: u64,
}

/// Removes files last written before a time that no version names.
pub(super) async fn remove_unnamed(uri: &str, before: DateTime<Utc>, mode: Mode) -> Result<Removed, SinkError> {
    let looking = || SinkError::storage(uri, "looking for files that no version names");
    for _ in 0..LOOKS {
        let dataset = open(uri).await?;
        let unnamed = unnamed(&dataset).await.map_err(looking())?;
        if unnamed.is_empty() {
            break;
        }
        let old = old_files(uri, before, &unnamed).await.map_err(looking())?;
        // A commit since the first look may have named one of them.
        if open(uri).await?.version_id() != dataset.version_id() {
            continue;
        }
        let (store, _) = store(uri).await.map_err(looking())?;
        let mut removed = Removed::default();
        for (path, bytes) in old {
            if mode == Mode::Remove {
                match store.delete(&path).await {
                    Ok(()) => {}
                    // Another cleanup was faster.
                    Err(error) if error.is_not_found() => continue,
                    Err(_) => {
                        removed.failed += 1;
                        continue;
                    }
                }
            }
            removed.files += 1;
            removed.bytes += bytes;
        }
        return Ok(removed);
    }
    Ok(Removed::default())
}

/// Files that no version names, of any age. Nothing is removed: no version is old enough for this question.
async fn unnamed(dataset: &Dataset) -> lance::Result<HashSet<String>> {
    let policy = CleanupPolicy {
        before_version: Some(0),
        delete_unverified: true,
        error_if_tagged_old_versions: false,
        ..CleanupPolicy::default()
    };
    let explanation = Box::pin(dataset.cleanup(policy).with_max_candidate_files(usize::MAX).explain()).await?;
    let written = |kind| !matches!(kind, CleanupFileKind::Manifest | CleanupFileKind::Index);
    Ok(explanation.candidate_files.into_iter().filter(|file| written(file.kind)).map(|file| file.path).collect())
}

pub(super) async fn open(uri: &str) -> Result<Dataset, SinkError> {
    // Without the writers' store, for which Lance does not remove empty folders.
    table::open::latest_unsynced(uri).await?.ok_or_else(|| SinkError::NoTable { uri: uri.to_owned() })
}

pub(super) async fn store(uri: &str) -> lance::Result<(Arc<ObjectStore>, Path)> {
    ObjectStore::from_uri_and_params(Arc::default(), uri, &ObjectStoreParams::default()).await
}

/// Those of `unnamed` that were last written before that time, with their bytes.
async fn old_files(uri: &str, before: DateTime<Utc>, unnamed: &HashSet<String>) -> lance::Result<Vec<(Path, u64)>> {
    let (store, base) = store(uri).await?;
    let mut old = Vec::new();
    for folder in WRITTEN {
        let mut files = store.read_dir_all(&base.clone().join(folder), Some(before));
        loop {
            match files.try_next().await {
                Ok(Some(file)) if unnamed.contains(file.location.as_ref()) && file.last_modified <= before => {
                    old.push((file.location, file.size));
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                // A table without deletions has no such folder.
                Err(error) if error.is_not_found() => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(old)
}
