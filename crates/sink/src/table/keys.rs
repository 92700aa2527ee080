//! Reads the ids and content hashes of a table's documents, for the anti-join.
//!
//! out: `doc_id, content_hash`, one row per sequence of rows of one document
//!
//! Only these two columns are read. A document's chunks are adjacent, so dropping rows that repeat the row before gives
//! one row per document without reading the chunk number. `execute` opens the dataset at the version that the plan was
//! made for.

use std::{fmt, sync::Arc};

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::Schema,
};
use datafusion::{
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{Stream, TryStreamExt, stream};
use lance::dataset::builder::DatasetBuilder;
use polylance_dataflow::operator::{fmt_operator, properties};
use polylance_schema::{
    columns::{CONTENT_HASH, DOC_ID},
    key_schema,
};

use super::schema_check::column_differences;
use crate::{error::SinkError, operator};

/// Scans the keys of one version of a table.
#[derive(Debug)]
pub struct TableKeysExec {
    uri: String,
    version: u64,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl TableKeysExec {
    /// A scan of the keys of `version` of the table at `uri`, whose columns are `schema`.
    ///
    /// # Errors
    /// [`SinkError::SchemaMismatch`] when the table lacks a key column.
    pub fn try_new(uri: &str, version: u64, schema: &Schema) -> Result<Self, SinkError> {
        let keys = key_schema();
        let columns: Vec<_> = column_differences(schema, &keys).into_iter().filter(|d| d.run.is_some()).collect();
        if !columns.is_empty() {
            return Err(SinkError::SchemaMismatch { uri: uri.to_owned(), columns });
        }
        let (uri, properties) = (uri.to_owned(), properties(keys));
        Ok(Self { uri, version, properties, metrics: ExecutionPlanMetricsSet::new() })
    }

    /// The table's address.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The version that is read.
    pub fn version(&self) -> u64 {
        self.version
    }
}

impl DisplayAs for TableKeysExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_operator(format, f, "TableKeysExec", &[("uri", &self.uri), ("version", &self.version)])
    }
}

impl ExecutionPlan for TableKeysExec {
    operator::leaf_methods!("TableKeysExec");

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let keys = stream::once(scan(self.uri.clone(), self.version)).try_flatten();
        let mut last = None;
        let batches = keys.and_then(move |batch| {
            let distinct = without_repeats(&batch, &mut last).map(|batch| batch.record_output(&baseline));
            futures::future::ready(distinct)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(key_schema(), batches)))
    }
}

async fn scan(uri: String, version: u64) -> Result<impl Stream<Item = Result<RecordBatch>>> {
    let reading = |error| SinkError::storage(&uri, "reading the table's ids")(error);
    let dataset = Box::pin(DatasetBuilder::from_uri(&uri).with_version(version).load()).await.map_err(reading)?;
    let mut scanner = dataset.scan();
    scanner.project(&[DOC_ID, CONTENT_HASH]).map_err(reading)?;
    let stream = Box::pin(scanner.try_into_stream()).await.map_err(reading)?;
    Ok(stream.map_err(move |error| SinkError::storage(&uri, "reading the table's ids")(error).into()))
}

/// Drops each row whose id and hash are those of the row before, across batches.
fn without_repeats(batch: &RecordBatch, last: &mut Option<(String, Vec<u8>)>) -> Result<RecordBatch> {
    let ids = batch.column(0).as_string::<i32>();
    let hashes = batch.column(1).as_fixed_size_binary();
    let keep: BooleanArray = (0..batch.num_rows())
        .map(|row| {
            let repeats = match (row, &*last) {
                (0, None) => false,
                (0, Some((id, hash))) => ids.value(0) == id && hashes.value(0) == hash,
                _ => ids.value(row) == ids.value(row - 1) && hashes.value(row) == hashes.value(row - 1),
            };
            Some(!repeats)
        })
        .collect();
    if let Some(end) = batch.num_rows().checked_sub(1) {
        *last = Some((ids.value(end).to_owned(), hashes.value(end).to_vec()));
    }
    let kept = filter_record_batch(batch, &keep)?;
    Ok(RecordBatch::try_new(key_schema(), kept.columns().to_vec())?)
}
