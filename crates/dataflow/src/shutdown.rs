//! Ending a run before its source ends.

use std::{fmt, future::ready};

use arrow::array::RecordBatch;
use datafusion::{
    error::{DataFusionError, Result},
    execution::TaskContext,
};
use futures::{Stream, StreamExt, stream};
use tokio_util::sync::CancellationToken;

/// Ends a running plan early: an extension of the session that [`EncodeExec`](crate::EncodeExec) and
/// [`AnnotateExec`](crate::AnnotateExec) watch.
///
/// The plan ends with the error [`Cancelled`]; the operators that write commit what is complete before they return it.
#[derive(Debug, Clone, Default)]
pub struct ShutdownSignal {
    graceful: CancellationToken,
    immediate: CancellationToken,
}

impl ShutdownSignal {
    /// Requests a graceful end: no new windows begin, and those in work are finished.
    pub fn request(&self) {
        self.graceful.cancel();
    }

    /// Forces the end: windows in work are dropped.
    pub fn force(&self) {
        self.request();
        self.immediate.cancel();
    }

    /// Resolves when a graceful end is requested.
    pub async fn requested(&self) {
        self.graceful.cancelled().await;
    }

    /// Resolves when the end is forced.
    pub async fn forced(&self) {
        self.immediate.cancelled().await;
    }

    /// The signal of the session, or one that is never given.
    pub fn of(context: &TaskContext) -> Self {
        context.session_config().get_extension::<Self>().map(|signal| signal.as_ref().clone()).unwrap_or_default()
    }

    /// The batches until a graceful end is requested, then [`Cancelled`].
    pub(crate) fn take_until_requested<B: Batches>(&self, batches: B) -> impl Batches + use<B> {
        take_until(batches, self.graceful.clone())
    }

    /// The batches until the end is forced, then [`Cancelled`].
    pub(crate) fn take_until_forced<B: Batches>(&self, batches: B) -> impl Batches + use<B> {
        take_until(batches, self.immediate.clone())
    }
}

/// A stream of batches.
pub(crate) trait Batches: Stream<Item = Result<RecordBatch>> + Send {}

impl<B: Stream<Item = Result<RecordBatch>> + Send> Batches for B {}

fn take_until(batches: impl Batches, signal: CancellationToken) -> impl Batches {
    let end = {
        let signal = signal.clone();
        async move { signal.is_cancelled().then(|| Err(Cancelled::error())) }
    };
    batches.take_until(signal.cancelled_owned()).chain(stream::once(end).filter_map(ready))
}

/// A [`ShutdownSignal`] ended the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancelled;

impl std::error::Error for Cancelled {}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the run was stopped before its end")
    }
}

impl Cancelled {
    /// Whether this is why a plan ended.
    pub fn is_cause_of(error: &DataFusionError) -> bool {
        matches!(error.find_root(), DataFusionError::External(inner) if inner.is::<Self>())
    }

    /// The error with which a plan ends.
    pub fn error() -> DataFusionError {
        DataFusionError::External(Box::new(Self))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;

    /// The errors of two streams after a batch each and the signal.
    async fn taken(signal: impl Fn(&ShutdownSignal)) -> (usize, usize) {
        let shutdown = ShutdownSignal::default();
        let batch = || Ok(RecordBatch::new_empty(Arc::new(Schema::empty())));
        let (requested, forced) = (
            shutdown.take_until_requested(stream::iter([batch(), batch()])),
            shutdown.take_until_forced(stream::iter([batch(), batch()])),
        );
        let (mut requested, mut forced) = (Box::pin(requested), Box::pin(forced));
        assert!(requested.next().await.unwrap().is_ok() && forced.next().await.unwrap().is_ok());
        signal(&shutdown);
        (errors(requested).await, errors(forced).await)
    }

    async fn errors(batches: impl Batches) -> usize {
        let rest: Vec<_> = batches.collect().await;
        let errors = rest.iter().filter_map(|batch| batch.as_ref().err());
        assert!(errors.clone().all(Cancelled::is_cause_of));
        errors.count()
    }

    #[tokio::test]
    async fn a_request_ends_the_first_stream_and_force_ends_both() {
        assert_eq!(taken(|_| ()).await, (0, 0));
        assert_eq!(taken(ShutdownSignal::request).await, (1, 0));
        assert_eq!(taken(ShutdownSignal::force).await, (1, 1));
    }
}
