//! Removes old versions, and files that no version names.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use lance::{
    Dataset,
    dataset::cleanup::{CleanupFileKind, CleanupPolicy, CleanupPolicyBuilder, RemovalStats},
    io::{ObjectStore, ObjectStoreParams},
};
use polylance_schema::MaintenancePolicy;
use serde::Serialize;

use crate::{SinkError, storage, store_clock::store_now};

/// The folders of what a writer leaves behind when it is killed before its commit. Files of an index are left to
/// Lance, which removes them after a week: a build may take hours.
const WRITTEN: [&str; 4] = ["data", "_deletions", "_transactions", "_versions"];

/// Looks at the table again this often when a writer is at work, then leaves it.
const LOOKS: usize = 3;

/// How long versions and files stay. The latest version stays always, and so do tagged ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Versions older than this go.
    pub older_than: Duration,
    /// So many of the newest stay whatever their age; 0 counts as 1.
    pub keep_versions: usize,
    /// Files that no version names go from this age on; never before [`Self::SAFE_AGE`].
    pub unnamed: Duration,
}

impl Retention {
    /// A file that no version names is never removed before it has this age: a run may be about to commit it.
    pub const SAFE_AGE: Duration = Duration::from_hours(1);
    /// After this time nobody is about to commit a file: Lance's own limit, and the latest one here.
    pub const WEEK: Duration = Duration::from_hours(7 * 24);
}

impl Default for Retention {
    fn default() -> Self {
        Self { older_than: Self::WEEK, keep_versions: 10, unnamed: Self::WEEK }
    }
}

impl From<&MaintenancePolicy> for Retention {
    fn from(policy: &MaintenancePolicy) -> Self {
        Self {
            older_than: Duration::from_secs(policy.keep_days.saturating_mul(24 * 3600)),
            keep_versions: usize::try_from(policy.keep_versions).unwrap_or(usize::MAX),
            unnamed: Self::WEEK,
        }
    }
}

/// Whether to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Remove.
    Remove,
    /// Only say what would be removed.
    Explain,
}

/// What [`clean`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cleaned {
    /// Versions that can be read.
    pub versions_kept: u64,
    /// Versions that are gone.
    pub versions_removed: u64,
    /// Files that are gone, those of the versions included.
    pub files_removed: u64,
    /// Their bytes.
    pub bytes_removed: u64,
    /// Files that could not be removed: the next cleanup finds them again.
    pub files_failed: u64,
}

impl Cleaned {
    fn add(&mut self, stats: &RemovalStats) {
        self.versions_removed += stats.old_versions;
        self.files_removed += stats.old_versions
            + stats.data_files_removed
            + stats.transaction_files_removed
            + stats.index_files_removed
            + stats.deletion_files_removed;
        self.bytes_removed += stats.bytes_removed;
        self.files_failed += stats.failed_deletes;
    }
}

/// Removes versions of the table at `uri` that are both old and not among the newest, the files that only they name,
/// and files that no version names. A reader of a removed version fails.
///
/// # Errors
/// [`SinkError::NoTable`] or [`SinkError::Storage`].
pub async fn clean(uri: &str, retention: &Retention, mode: Mode) -> Result<Cleaned, SinkError> {
    let cleaning = || SinkError::storage(uri, "removing old versions");
    let dataset = open(uri).await?;
    let now = now(uri, mode).await?;
    let policy = versions(&dataset, retention, now).await.map_err(cleaning())?;
    let mut cleaned = Cleaned::default();
    let operation = dataset.cleanup(policy);
    let stats = match mode {
        Mode::Remove => Box::pin(operation.execute()).await,
        Mode::Explain => Box::pin(operation.explain()).await.map(|explanation| explanation.stats),
    };
    cleaned.add(&stats.map_err(cleaning())?);
    // Lance has removed what is older than a week.
    let unnamed = retention.unnamed.max(Retention::SAFE_AGE);
    if unnamed < Retention::WEEK {
        remove_unnamed(uri, now, unnamed, mode, &mut cleaned).await?;
    }
    let versions = dataset.version_refs().await.map_err(cleaning())?.len() as u64;
    cleaned.versions_kept = if mode == Mode::Remove { versions } else { versions - cleaned.versions_removed };
    Ok(cleaned)
}

async fn open(uri: &str) -> Result<Dataset, SinkError> {
    // Without the writers' store, for which Lance does not remove empty folders.
    storage::open_unsynced(uri).await?.ok_or_else(|| SinkError::NoTable { uri: uri.to_owned() })
}

/// Both conditions must hold for a version to go.
async fn versions(dataset: &Dataset, retention: &Retention, now: DateTime<Utc>) -> lance::Result<CleanupPolicy> {
    let before = chrono::TimeDelta::from_std(retention.older_than).ok();
    let before = before.and_then(|age| now.checked_sub_signed(age)).unwrap_or(DateTime::UNIX_EPOCH);
    let policy = CleanupPolicyBuilder::default().before_timestamp(before).error_if_tagged_old_versions(false);
    Ok(policy.retain_n_versions(dataset, retention.keep_versions.max(1)).await?.build())
}

/// Removes files of at least this age that no version names.
async fn remove_unnamed(
    uri: &str,
    now: DateTime<Utc>,
    age: Duration,
    mode: Mode,
    cleaned: &mut Cleaned,
) -> Result<(), SinkError> {
    let looking = || SinkError::storage(uri, "looking for files that no version names");
    for _ in 0..LOOKS {
        let dataset = open(uri).await?;
        let unnamed = unnamed(&dataset).await.map_err(looking())?;
        if unnamed.is_empty() {
            return Ok(());
        }
        let old = old_files(uri, now - age, &unnamed).await.map_err(looking())?;
        // A commit since the first look may have named one of them.
        if open(uri).await?.version_id() != dataset.version_id() {
            continue;
        }
        let (store, _) = store(uri).await.map_err(looking())?;
        for (path, bytes) in old {
            if mode == Mode::Remove {
                match store.delete(&path).await {
                    Ok(()) => {}
                    // Another cleanup was faster.
                    Err(error) if error.is_not_found() => continue,
                    Err(_) => {
                        cleaned.files_failed += 1;
                        continue;
                    }
                }
            }
            cleaned.files_removed += 1;
            cleaned.bytes_removed += bytes;
        }
        return Ok(());
    }
    Ok(())
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

type Path = object_store::path::Path;

/// The store's time. A machine whose clock is ahead would take young files for old ones, and Lance, which reads this
/// machine's clock, is not let loose then.
async fn now(uri: &str, mode: Mode) -> Result<DateTime<Utc>, SinkError> {
    let looking = || SinkError::storage(uri, "asking the store for the time");
    let (store, base) = store(uri).await.map_err(looking())?;
    let local = Utc::now();
    let now = match store_now(&store, &base.join("_transactions")).await {
        Ok(now) => now,
        // Whoever may only read may still ask what would be removed.
        Err(_) if mode == Mode::Explain => local,
        Err(error) => return Err(looking()(error.into())),
    };
    clocks_agree(uri, local, now)?;
    Ok(now)
}

fn clocks_agree(uri: &str, local: DateTime<Utc>, store: DateTime<Utc>) -> Result<(), SinkError> {
    match (local - store).to_std() {
        Ok(ahead) if ahead >= Retention::SAFE_AGE => {
            let ahead = format!("{} minutes", ahead.as_secs() / 60);
            Err(SinkError::Clock { uri: uri.to_owned(), ahead })
        }
        _ => Ok(()),
    }
}

async fn store(uri: &str) -> lance::Result<(Arc<ObjectStore>, Path)> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_ahead_of_the_store_ends_a_cleanup() {
        let now = DateTime::UNIX_EPOCH;
        assert!(clocks_agree("t", now + Duration::from_mins(59), now).is_ok());
        assert!(clocks_agree("t", now - Duration::from_hours(50), now).is_ok());
        let error = clocks_agree("t", now + Duration::from_mins(90), now).unwrap_err();
        assert!(error.to_string().contains("90 minutes ahead of the store's"), "{error}");
    }
}
