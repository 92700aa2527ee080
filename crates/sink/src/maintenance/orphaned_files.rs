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

use super::policy::CleanupMode;
use crate::{error::SinkError, table};

/// The folders with files that a writer leaves behind when it is killed before its commit. Lance removes orphaned files
/// of an index after a week, because a build may take hours.
const WRITER_FOLDERS: [&str; 4] = ["data", "_deletions", "_transactions", "_versions"];

/// Attempts to find orphaned files while other writers commit.
const MAX_ATTEMPTS: usize = 3;

/// What [`remove_orphaned_files`] did.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Files that could not be removed.
    pub(super) failed: u64,
}

/// Removes orphaned files that were last written before a time.
pub(super) async fn remove_orphaned_files(
    uri: &str,
    before: DateTime<Utc>,
    mode: CleanupMode,
) -> Result<Removed, SinkError> {
    let looking = || SinkError::storage(uri, "looking for orphaned files");
    for _ in 0..MAX_ATTEMPTS {
        let dataset = open(uri).await?;
        let orphaned = find_orphaned_files(&dataset).await.map_err(looking())?;
        if orphaned.is_empty() {
            break;
        }
        let old = old_files(uri, before, &orphaned).await.map_err(looking())?;
        // A commit since then may refer to one of them.
        if open(uri).await?.version_id() != dataset.version_id() {
            continue;
        }
        let (store, _) = store(uri).await.map_err(looking())?;
        let mut removed = Removed::default();
        for (path, bytes) in old {
            if mode == CleanupMode::Remove {
                match store.delete(&path).await {
                    Ok(()) => {}
                    // Another cleanup has removed it.
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

/// Orphaned files of any age. Nothing is removed: the cleanup is only explained, and covers no version.
async fn find_orphaned_files(dataset: &Dataset) -> lance::Result<HashSet<String>> {
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
    // Without the writers' store, because Lance does not remove empty folders there.
    table::open::latest_unsynced(uri).await?.ok_or_else(|| SinkError::NoTable { uri: uri.to_owned() })
}

pub(super) async fn store(uri: &str) -> lance::Result<(Arc<ObjectStore>, Path)> {
    ObjectStore::from_uri_and_params(Arc::default(), uri, &ObjectStoreParams::default()).await
}

/// The `orphaned` files that were last written before a time, with their bytes.
async fn old_files(uri: &str, before: DateTime<Utc>, orphaned: &HashSet<String>) -> lance::Result<Vec<(Path, u64)>> {
    let (store, base) = store(uri).await?;
    let mut old = Vec::new();
    for folder in WRITER_FOLDERS {
        let mut files = store.read_dir_all(&base.clone().join(folder), Some(before));
        loop {
            match files.try_next().await {
                Ok(Some(file)) if orphaned.contains(file.location.as_ref()) && file.last_modified <= before => {
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
