//! Rows of the input gathered into windows: batches that are large enough to keep all devices busy.

use arrow::{
    array::{Array, AsArray, RecordBatch, StringArray},
    compute::concat_batches,
    datatypes::SchemaRef,
};
use async_stream::try_stream;
use datafusion::{error::Result, execution::SendableRecordBatchStream, physical_plan::metrics::Time};
use futures::{Stream, TryStreamExt};
use polylance_schema::columns::DOC_ID;

use crate::batches::column;

/// Name of the metric with the time in which nothing but the devices could make the stream go on.
pub(super) const WAIT_DEVICE: &str = "wait_device";
/// Windows in work at the same time.
pub(super) const WINDOWS_IN_FLIGHT: usize = 3;

/// When a window is full, and where it may end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WindowLimit {
    /// The sum of the rows' weights that closes a window.
    pub(crate) weight: usize,
    /// The number of rows that closes a window, whatever their weights.
    pub(crate) rows: usize,
    /// Whether a window ends only between two documents.
    pub(crate) whole_documents: bool,
}

/// The weight of each row of a batch.
pub(crate) type Weigh = fn(&RecordBatch) -> Result<Vec<usize>>;

/// The rows of the input in windows. The time of gathering them is added to `work`.
pub(crate) fn windows(
    mut input: SendableRecordBatchStream,
    limit: WindowLimit,
    weigh: Weigh,
    work: Time,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let mut window = Window { schema: input.schema(), limit, parts: Vec::new(), weight: 0, rows: 0, document: None };
    try_stream! {
        while let Some(batch) = input.try_next().await? {
            let mut rows = {
                let _timer = work.timer();
                UnreadRows::new(batch, weigh)?
            };
            loop {
                let full = {
                    let _timer = work.timer();
                    window.fill(&mut rows)?
                };
                match full {
                    Some(full) => yield full,
                    None => break,
                }
            }
        }
        if window.rows > 0 {
            yield window.take()?;
        }
    }
}

/// A batch of the input, and which of its rows are in no window yet.
struct UnreadRows {
    batch: RecordBatch,
    documents: StringArray,
    weights: Vec<usize>,
    next: usize,
}

impl UnreadRows {
    fn new(batch: RecordBatch, weigh: Weigh) -> Result<Self> {
        let documents = column(&batch, DOC_ID)?.as_string::<i32>().clone();
        let weights = weigh(&batch)?;
        Ok(Self { batch, documents, weights, next: 0 })
    }
}

/// The window that is being filled.
struct Window {
    schema: SchemaRef,
    limit: WindowLimit,
    parts: Vec<RecordBatch>,
    weight: usize,
    rows: usize,
    /// The document of the last row, where windows hold whole documents.
    document: Option<String>,
}

impl Window {
    /// Takes rows until the window is full, which is then returned, or until there are no more.
    fn fill(&mut self, unread: &mut UnreadRows) -> Result<Option<RecordBatch>> {
        let start = unread.next;
        for row in start..unread.batch.num_rows() {
            let id = unread.documents.value(row);
            let same = unread.documents.is_valid(row) && self.document.as_deref() == Some(id);
            let full = self.weight >= self.limit.weight || self.rows >= self.limit.rows;
            if full && !(self.limit.whole_documents && same) {
                self.parts.push(unread.batch.slice(start, row - start));
                unread.next = row;
                return self.take().map(Some);
            }
            self.weight += unread.weights[row];
            self.rows += 1;
            if self.limit.whole_documents && !same {
                self.document = Some(id.to_owned());
            }
        }
        unread.next = unread.batch.num_rows();
        self.parts.push(unread.batch.slice(start, unread.next - start));
        Ok(None)
    }

    fn take(&mut self) -> Result<RecordBatch> {
        (self.weight, self.rows) = (0, 0);
        Ok(concat_batches(&self.schema, &std::mem::take(&mut self.parts))?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::UInt64Array,
        datatypes::{DataType, Field, Schema, UInt64Type},
    };
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::stream;

    use super::*;

    /// Batches of rows `(document, weight)`.
    async fn lengths(batches: &[&[(&str, u64)]], limit: WindowLimit) -> Vec<usize> {
        let fields = vec![Field::new(DOC_ID, DataType::Utf8, true), Field::new("weight", DataType::UInt64, true)];
        let schema = Arc::new(Schema::new(fields));
        let batch = |rows: &&[(&str, u64)]| {
            let ids = StringArray::from_iter_values(rows.iter().map(|row| row.0));
            let weights = UInt64Array::from_iter_values(rows.iter().map(|row| row.1));
            Ok(RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(ids), Arc::new(weights)]).unwrap())
        };
        let batches: Vec<_> = batches.iter().map(batch).collect();
        let input = Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(batches)));
        let weigh: Weigh = |batch| {
            let weights = column(batch, "weight")?.as_primitive::<UInt64Type>();
            Ok(weights.values().iter().map(|weight| *weight as usize).collect())
        };
        let found = windows(input, limit, weigh, Time::new());
        found.map_ok(|window| window.num_rows()).try_collect().await.unwrap()
    }

    #[tokio::test]
    async fn a_window_closes_at_its_weight_or_its_rows_over_the_borders_of_batches() {
        let limit = WindowLimit { weight: 10, rows: 3, whole_documents: false };
        assert_eq!(
            lengths(&[&[("a", 4), ("b", 6), ("c", 1)], &[("d", 1), ("e", 1), ("f", 1)]], limit).await,
            [2, 3, 1]
        );
        assert_eq!(lengths(&[&[("a", 99), ("a", 99)], &[]], limit).await, [1, 1]);
        assert!(lengths(&[&[], &[]], limit).await.is_empty());
    }

    #[tokio::test]
    async fn a_document_is_not_cut_where_windows_hold_whole_ones() {
        let limit = WindowLimit { weight: 2, rows: 99, whole_documents: true };
        assert_eq!(
            lengths(&[&[("a", 1), ("a", 1), ("a", 1)], &[("a", 1), ("b", 5), ("c", 1)]], limit).await,
            [4, 1, 1]
        );
    }
}
