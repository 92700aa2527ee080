//! Drops the documents that the table has already.
//!
//! in:  `key_schema()`, the table's documents, and `source_schema(keep)`
//! out: the second input without the rows whose `doc_id` and `content_hash` are among the keys
//!
//! Rows leave in the order they came. A refused row has no hash, and so it stays; a row with neither hash nor error is
//! of a file whose rows the table is known to have, and goes. The keys are held as 128 bits each,
//! on disk when the session's memory is too small for them, and a batch is passed on before the next one is asked
//! for: DataFusion's `HashJoinExec` cannot spill, and it gathers the rows it keeps until they are thousands, which
//! with long documents are gigabytes.

use std::{fmt, io, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use async_stream::try_stream;
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext, memory_pool::MemoryConsumer},
    physical_plan::{
        DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
        coalesce_partitions::CoalescePartitionsExec,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::TryStreamExt;
use polylance_ids::hash;
use polylance_schema::{
    columns::{CONTENT_HASH, DOC_ID, ERROR},
    key_schema,
};

use super::operator;
use crate::{
    batches::column,
    datafusion_error,
    spill::key_set::{KnownKeys, KnownKeysBuilder},
};

/// Name of the metric with the rows that the table has.
pub(crate) const ROWS_SKIPPED: &str = "rows_skipped";

/// Keeps the documents that are not among the keys.
#[derive(Debug)]
pub struct AntiJoinExec {
    keys: Arc<dyn ExecutionPlan>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl AntiJoinExec {
    /// `keys`: the table's documents, in any order; `input`: the source's.
    ///
    /// # Errors
    /// When either lacks the two columns.
    pub fn try_new(keys: Arc<dyn ExecutionPlan>, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        for field in key_schema().fields() {
            for schema in [keys.schema(), input.schema()] {
                let found = schema.field_with_name(field.name())?.data_type();
                if found != field.data_type() {
                    return Err(DataFusionError::Plan(format!("AntiJoinExec expects {field}, found {found}")));
                }
            }
        }
        let single = keys.output_partitioning().partition_count() == 1;
        let keys = if single { keys } else { Arc::new(CoalescePartitionsExec::new(keys)) };
        let properties = operator::properties(input.schema());
        Ok(Self { keys, input, properties, metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl DisplayAs for AntiJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AntiJoinExec: on=[{DOC_ID}, {CONTENT_HASH}]")
    }
}

impl ExecutionPlan for AntiJoinExec {
    fn name(&self) -> &'static str {
        "AntiJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition; 2]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false, true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.keys, &self.input]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let [keys, input] =
            <[_; 2]>::try_from(children).map_err(|_| DataFusionError::Plan("AntiJoinExec has two inputs".into()))?;
        Ok(Arc::new(Self::try_new(keys, input)?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let skipped = MetricBuilder::new(&self.metrics).counter(ROWS_SKIPPED, partition);
        let reservation = MemoryConsumer::new(self.name()).register(context.memory_pool());
        let mut keys = self.keys.execute(0, Arc::clone(&context))?;
        let mut input = self.input.execute(partition, context)?;
        let batches = try_stream! {
            let mut known = KnownKeysBuilder::new(reservation);
            while let Some(batch) = keys.try_next().await? {
                let _timer = baseline.elapsed_compute().timer();
                for_each_key(&batch, |_, key| known.insert(key))?;
            }
            drop(keys);
            let mut known = known.finish().map_err(datafusion_error::temporary)?;
            while let Some(batch) = input.try_next().await? {
                let rows = batch.num_rows();
                let rest = {
                    let _timer = baseline.elapsed_compute().timer();
                    unknown(batch, &mut known)?
                };
                skipped.add(rows - rest.num_rows());
                if rest.num_rows() > 0 {
                    yield rest.record_output(&baseline);
                }
            }
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Calls back with each row that has an id and a hash, and 128 bits of the BLAKE3 of both.
fn for_each_key(batch: &RecordBatch, mut found: impl FnMut(usize, u128) -> io::Result<()>) -> Result<()> {
    let ids = column(batch, DOC_ID)?.as_string::<i32>();
    let hashes = column(batch, CONTENT_HASH)?.as_fixed_size_binary();
    let mut both = Vec::new();
    for row in 0..batch.num_rows() {
        if ids.is_null(row) || hashes.is_null(row) {
            continue;
        }
        // The hash has one length, so nothing else gives the same bytes.
        both.clear();
        both.extend_from_slice(hashes.value(row));
        both.extend_from_slice(ids.value(row).as_bytes());
        found(row, hash(&both)).map_err(datafusion_error::temporary)?;
    }
    Ok(())
}

fn unknown(batch: RecordBatch, known: &mut KnownKeys) -> Result<RecordBatch> {
    let (hashes, errors) = (column(&batch, CONTENT_HASH)?, column(&batch, ERROR)?);
    if known.is_empty() && hashes.null_count() == errors.len() - errors.null_count() {
        return Ok(batch);
    }
    let mut stays: Vec<bool> = (0..batch.num_rows()).map(|row| hashes.is_valid(row) || errors.is_valid(row)).collect();
    for_each_key(&batch, |row, key| {
        stays[row] = !known.has(key)?;
        Ok(())
    })?;
    if stays.iter().all(|&stays| stays) {
        return Ok(batch);
    }
    Ok(filter_record_batch(&batch, &BooleanArray::from(stays))?)
}
