//! Removes old versions, and files that no version names.

use chrono::{DateTime, Utc};
use lance::{
    Dataset,
    dataset::cleanup::{CleanupPolicy, CleanupPolicyBuilder, RemovalStats},
};
use serde::Serialize;

use super::{
    orphaned_files::{Removed, open, remove_unnamed, store},
    policy::{Mode, Retention},
};
use crate::{error::SinkError, table::store_clock::store_now};

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
        let Removed { files, bytes, failed } = remove_unnamed(uri, now - unnamed, mode).await?;
        cleaned.files_removed += files;
        cleaned.bytes_removed += bytes;
        cleaned.files_failed += failed;
    }
    let versions = dataset.version_refs().await.map_err(cleaning())?.len() as u64;
    cleaned.versions_kept = if mode == Mode::Remove { versions } else { versions - cleaned.versions_removed };
    Ok(cleaned)
}

/// Both conditions must hold for a version to go.
async fn versions(dataset: &Dataset, retention: &Retention, now: DateTime<Utc>) -> lance::Result<CleanupPolicy> {
    let before = chrono::TimeDelta::from_std(retention.older_than).ok();
    let before = before.and_then(|age| now.checked_sub_signed(age)).unwrap_or(DateTime::UNIX_EPOCH);
    let policy = CleanupPolicyBuilder::default().before_timestamp(before).error_if_tagged_old_versions(false);
    Ok(policy.retain_n_versions(dataset, retention.keep_versions.max(1)).await?.build())
}

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
