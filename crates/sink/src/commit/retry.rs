//! Other writers in a commit's way, and how often it is tried again.

use lance_core::utils::backoff::SlotBackoff;

use crate::error::SinkError;

/// Tries of one commit against other writers before giving up.
const ATTEMPTS: u32 = 30;

/// Tries of one commit, with a pause before each but the first.
#[derive(Default)]
pub(crate) struct Attempts {
    failed: u32,
    pauses: SlotBackoff,
}

impl Attempts {
    /// Waits a little, after which the commit may be tried again on the latest version. Those who were in each other's
    /// way wait for different times, up to some seconds.
    ///
    /// # Errors
    /// [`SinkError::Conflict`] when it was tried often enough.
    pub(crate) async fn conflict(&mut self, uri: &str, source: impl Into<Box<lance::Error>>) -> Result<(), SinkError> {
        self.failed += 1;
        if self.failed == ATTEMPTS {
            return Err(SinkError::Conflict { uri: uri.to_owned(), attempts: ATTEMPTS, source: source.into() });
        }
        tokio::time::sleep(self.pauses.next_backoff()).await;
        Ok(())
    }
}

/// Whether another writer was faster, and the commit may be tried again on the latest version.
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
