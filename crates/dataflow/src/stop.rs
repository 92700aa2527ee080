//! Ending a run before its source ends.

use std::fmt;

use datafusion::{error::DataFusionError, execution::TaskContext};
use tokio_util::sync::CancellationToken;

/// Asks a running plan to come to an end: an extension of the session that [`EncodeExec`](crate::EncodeExec) listens to.
///
/// The plan ends with the error [`Stopped`]; the operators that write commit what is complete before they pass it on.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    begin: CancellationToken,
    hurry: CancellationToken,
}

impl Stop {
    /// Begin no more windows; those in work are finished.
    pub fn begin(&self) {
        self.begin.cancel();
    }

    /// Do not wait for those in work either.
    pub fn hurry(&self) {
        self.begin();
        self.hurry.cancel();
    }

    pub(crate) fn of(context: &TaskContext) -> Self {
        context.session_config().get_extension::<Self>().map(|stop| stop.as_ref().clone()).unwrap_or_default()
    }

    pub(crate) async fn begun(self) {
        self.begin.cancelled().await;
    }

    pub(crate) async fn hurried(self) {
        self.hurry.cancelled().await;
    }

    pub(crate) fn is_begun(&self) -> bool {
        self.begin.is_cancelled()
    }

    pub(crate) fn is_hurried(&self) -> bool {
        self.hurry.is_cancelled()
    }
}

/// The plan was told to [`Stop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

impl std::error::Error for Stopped {}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the run was told to stop")
    }
}

impl Stopped {
    /// Whether this is why a plan ended.
    pub fn ended(error: &DataFusionError) -> bool {
        matches!(error.find_root(), DataFusionError::External(inner) if inner.is::<Self>())
    }

    pub(crate) fn error() -> DataFusionError {
        DataFusionError::External(Box::new(Self))
    }
}
