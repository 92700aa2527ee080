//! Ending a run before its source ends.

use std::{fmt, future::ready};

use arrow::array::RecordBatch;
use datafusion::{
    error::{DataFusionError, Result},
    execution::TaskContext,
};
use futures::{Stream, StreamExt, stream};
use tokio_util::sync::CancellationToken;

/// Asks a running plan to come to an end: an extension of the session that [`EncodeExec`](crate::EncodeExec) and
/// [`AnnotateExec`](crate::AnnotateExec) listen to.
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

    /// The batches until the stop is begun, and behind them the error that tells of it.
    pub(crate) fn before_it_begins<B: Batches>(&self, batches: B) -> impl Batches + use<B> {
        until(batches, self.begin.clone())
    }

    /// The batches until the stop is hurried, and behind them the error that tells of it.
    pub(crate) fn before_it_hurries<B: Batches>(&self, batches: B) -> impl Batches + use<B> {
        until(batches, self.hurry.clone())
    }
}

pub(crate) trait Batches: Stream<Item = Result<RecordBatch>> + Send {}

impl<B: Stream<Item = Result<RecordBatch>> + Send> Batches for B {}

fn until(batches: impl Batches, signal: CancellationToken) -> impl Batches {
    let end = {
        let signal = signal.clone();
        async move { signal.is_cancelled().then(|| Err(Stopped::error())) }
    };
    batches.take_until(signal.cancelled_owned()).chain(stream::once(end).filter_map(ready))
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
