//! Retries of a commit when another writer commits first.

use lance::Dataset;
use lance_core::utils::backoff::SlotBackoff;

use crate::error::SinkError;

/// Attempts of one commit, the first included, before a run gives up.
const MAX_COMMIT_ATTEMPTS: u32 = 30;

/// The attempts of one commit, with a pause before each retry.
#[derive(Default)]
pub(crate) struct CommitRetry {
    failed_attempts: u32,
    backoff: SlotBackoff,
}

impl CommitRetry {
    /// Waits, after which the commit may be retried on the latest version. Writers that conflicted wait for different
    /// times, up to some seconds.
    ///
    /// # Errors
    /// [`SinkError::Conflict`] after [`MAX_COMMIT_ATTEMPTS`] attempts.
    pub(crate) async fn wait_after_conflict(
        &mut self,
        uri: &str,
        source: impl Into<Box<lance::Error>>,
    ) -> Result<(), SinkError> {
        self.failed_attempts += 1;
        if self.failed_attempts == MAX_COMMIT_ATTEMPTS {
            return Err(SinkError::Conflict {
                uri: uri.to_owned(),
                attempts: MAX_COMMIT_ATTEMPTS,
                source: source.into(),
            });
        }
        tokio::time::sleep(self.backoff.next_backoff()).await;
        Ok(())
    }

    /// Waits like [`Self::wait_after_conflict`], then moves `dataset` to the latest version.
    ///
    /// # Errors
    /// [`SinkError::Conflict`] after [`MAX_COMMIT_ATTEMPTS`] attempts, [`SinkError::Storage`].
    pub(crate) async fn refresh_after_conflict(
        &mut self,
        uri: &str,
        dataset: &mut Dataset,
        source: lance::Error,
    ) -> Result<(), SinkError> {
        self.wait_after_conflict(uri, source).await?;
        let latest = Box::pin(dataset.checkout_latest()).await;
        latest.map_err(SinkError::storage(uri, "looking for a newer version"))
    }
}

/// Whether another writer committed first, and the commit may be retried on the latest version.
pub(crate) fn is_conflict(error: &lance::Error) -> bool {
    matches!(
        error,
        lance::Error::CommitConflict { .. }
            | lance::Error::RetryableCommitConflict { .. }
            | lance::Error::IncompatibleTransaction { .. }
            | lance::Error::TooMuchWriteContention { .. }
            | lance::Error::DatasetAlreadyExists { .. }
    )
}
