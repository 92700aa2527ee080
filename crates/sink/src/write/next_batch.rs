//! The next batch of an input that is awaited until a deadline.

use arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use futures::{Stream, StreamExt};
use tokio::time::{Instant, timeout_at};

/// The outcome of waiting for a batch.
#[derive(Debug)]
pub(crate) enum NextBatch {
    Batch(RecordBatch),
    Failed(DataFusionError),
    /// The input has ended.
    End,
    /// The deadline came first.
    Deadline,
}

/// Waits for the next batch, without limit when there is no deadline.
pub(crate) async fn next_batch(
    input: &mut (impl Stream<Item = Result<RecordBatch>> + Unpin),
    deadline: Option<Instant>,
) -> NextBatch {
    let next = match deadline {
        Some(deadline) => timeout_at(deadline, input.next()).await,
        None => Ok(input.next().await),
    };
    match next {
        Ok(Some(Ok(batch))) => NextBatch::Batch(batch),
        Ok(Some(Err(error))) => NextBatch::Failed(error),
        Ok(None) => NextBatch::End,
        Err(_) => NextBatch::Deadline,
    }
}
