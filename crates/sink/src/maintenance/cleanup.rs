//! Removes old versions of a table, and orphaned files.

use chrono::{DateTime, Utc};
use lance::{
    Dataset,
    dataset::cleanup::{CleanupPolicy, CleanupPolicyBuilder, RemovalStats},
};
use serde::Serialize;

use super::{
    orphaned_files::{Removed, open, remove_orphaned_files, store},
    policy::{CleanupMode, Retention},
};
use crate::{error::SinkError, table::store_clock::store_now};

/// What [`cleanup`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CleanupReport {
    /// Versions that remain.
    pub versions_kept: u64,
    /// Versions removed.
    pub versions_removed: u64,
    /// Files removed, those of the versions included.
    pub files_removed: u64,
    /// Their bytes.
    pub bytes_removed: u64,
    /// Files that could not be removed: the next cleanup tries again.
    pub files_failed: u64,
}

impl CleanupReport {
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

/// Removes versions of the table at `uri` that are both old and not among the newest, the files that only they refer
/// to, and orphaned files. A reader of a removed version fails.
///
/// # Errors
/// [`SinkError::NoTable`] or [`SinkError::Storage`].
pub async fn cleanup(uri: &str, retention: &Retention, mode: CleanupMode) -> Result<CleanupReport, SinkError> {
    let cleaning = || SinkError::storage(uri, "removing old versions");
    let dataset = open(uri).await?;
    let now = checked_now(uri, mode).await?;
    let policy = version_policy(&dataset, retention, now).await.map_err(cleaning())?;
    let mut cleaned = CleanupReport::default();
    let operation = dataset.cleanup(policy);
    let stats = match mode {
        CleanupMode::Remove => Box::pin(operation.execute()).await,
        CleanupMode::DryRun => Box::pin(operation.explain()).await.map(|explanation| explanation.stats),
    };
    cleaned.add(&stats.map_err(cleaning())?);
    // Lance has removed orphaned files older than a week.
    let orphan_age = retention.orphan_age.max(Retention::MIN_ORPHAN_AGE);
    if orphan_age < Retention::WEEK {
        let Removed { files, bytes, failed } = remove_orphaned_files(uri, now - orphan_age, mode).await?;
        cleaned.files_removed += files;
        cleaned.bytes_removed += bytes;
        cleaned.files_failed += failed;
    }
    let versions = dataset.version_refs().await.map_err(cleaning())?.len() as u64;
    cleaned.versions_kept = if mode == CleanupMode::Remove { versions } else { versions - cleaned.versions_removed };
    Ok(cleaned)
}

/// Selects the versions for which both conditions hold.
async fn version_policy(dataset: &Dataset, retention: &Retention, now: DateTime<Utc>) -> lance::Result<CleanupPolicy> {
    let before = chrono::TimeDelta::from_std(retention.older_than).ok();
    let before = before.and_then(|age| now.checked_sub_signed(age)).unwrap_or(DateTime::UNIX_EPOCH);
    let policy = CleanupPolicyBuilder::default().before_timestamp(before).error_if_tagged_old_versions(false);
    Ok(policy.retain_n_versions(dataset, retention.keep_versions.max(1)).await?.build())
}

/// The store's time. A machine whose clock is ahead would take young files for old ones, so a cleanup by Lance, which
/// reads this machine's clock, is refused then.
async fn checked_now(uri: &str, mode: CleanupMode) -> Result<DateTime<Utc>, SinkError> {
    let looking = || SinkError::storage(uri, "reading the time of the store");
    let (store, base) = store(uri).await.map_err(looking())?;
    let local = Utc::now();
    let now = match store_now(&store, &base.join("_transactions")).await {
        Ok(now) => now,
        // A dry run needs no permission to write.
        Err(_) if mode == CleanupMode::DryRun => local,
        Err(error) => return Err(looking()(error.into())),
    };
    clocks_agree(uri, local, now)?;
    Ok(now)
}

fn clocks_agree(uri: &str, local: DateTime<Utc>, store: DateTime<Utc>) -> Result<(), SinkError> {
    match (local - store).to_std() {
        Ok(ahead) if ahead >= Retention::MIN_ORPHAN_AGE => {
            let ahead = format!("{} minutes", ahead.as_secs() / 60);
            Err(SinkError::Clock { uri: uri.to_owned(), ahead })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn clock_ahead_of_the_store_is_refused() {
        let now = DateTime::UNIX_EPOCH;
        assert!(clocks_agree("t", now + Duration::from_mins(59), now).is_ok());
        assert!(clocks_agree("t", now - Duration::from_hours(50), now).is_ok());
        let error = clocks_agree("t", now + Duration::from_mins(90), now).unwrap_err();
        assert!(error.to_string().contains("90 minutes ahead of the store's"), "{error}");
    }
}
