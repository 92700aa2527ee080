//! Drops the documents that the table has already.
//!
//! in:  `key_schema()`, the table's documents, and `source_schema(keep)`
//! out: the second input without the rows whose `doc_id` and `content_hash` are among the keys
//!
//! Rows keep their order. A refused row has no hash and stays; a row with neither hash nor error is of an unchanged
//! file, whose rows the table has, and is dropped. Keys take 128 bits each and spill to disk when the session's memory
//! is too small for them. A batch is returned before the next one is read: DataFusion's `HashJoinExec` cannot spill,
//! and it gathers thousands of rows for a batch, which are gigabytes with long documents.

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
        DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, PlanProperties, Statistics,
        coalesce_partitions::CoalescePartitionsExec,
        execution_plan::CardinalityEffect,
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
    spill::key_set::{KeySet, KeySetBuilder},
};

/// Name of the metric with the rows that the table has.
pub(crate) const ROWS_SKIPPED: &str = "rows_skipped";
/// Name of the metric with the time until all keys of the table are read, waits included.
const BUILD_TIME: &str = "build_time";

/// Keeps the documents that are not among the keys.
#[derive(Debug)]
pub struct AntiJoinExec {
    keys: Arc<dyn ExecutionPlan>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl AntiJoinExec {
    /// `keys` are the table's documents, in any order; `input` are the source's.
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
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = format!("[{DOC_ID}, {CONTENT_HASH}]");
        operator::fmt_operator(format, f, "AntiJoinExec", &[("on", &on)])
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
        let build_time = MetricBuilder::new(&self.metrics).subset_time(BUILD_TIME, partition);
        let reservation = MemoryConsumer::new(self.name()).register(context.memory_pool());
        let mut keys = self.keys.execute(0, Arc::clone(&context))?;
        let mut input = self.input.execute(partition, context)?;
        let batches = try_stream! {
            let build = build_time.timer();
            let mut known = KeySetBuilder::new(reservation);
            while let Some(batch) = keys.try_next().await? {
                let _timer = baseline.elapsed_compute().timer();
                for_each_key(&batch, |_, key| known.insert(key))?;
            }
            drop(keys);
            let mut known = {
                let _timer = baseline.elapsed_compute().timer();
                known.finish().map_err(datafusion_error::temporary)?
            };
            build.done();
            while let Some(batch) = input.try_next().await? {
                let rows = batch.num_rows();
                let rest = {
                    let _timer = baseline.elapsed_compute().timer();
                    drop_known(batch, &mut known)?
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

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let rows = self.input.partition_statistics(partition)?.num_rows.to_inexact();
        Ok(operator::row_statistics(&self.schema(), rows))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::LowerEqual
    }
}

/// Calls `found` with each row that has an id and a hash, and 128 bits of the BLAKE3 of both.
fn for_each_key(batch: &RecordBatch, mut found: impl FnMut(usize, u128) -> io::Result<()>) -> Result<()> {
    let ids = column(batch, DOC_ID)?.as_string::<i32>();
    let hashes = column(batch, CONTENT_HASH)?.as_fixed_size_binary();
    let mut both = Vec::new();
    for row in 0..batch.num_rows() {
        if ids.is_null(row) || hashes.is_null(row) {
            continue;
        }
        // Hashes have one length, so no other pair gives the same bytes.
        both.clear();
        both.extend_from_slice(hashes.value(row));
        both.extend_from_slice(ids.value(row).as_bytes());
        found(row, hash(&both)).map_err(datafusion_error::temporary)?;
    }
    Ok(())
}

/// The rows of a batch that the table does not have.
fn drop_known(batch: RecordBatch, known: &mut KeySet) -> Result<RecordBatch> {
    let (hashes, errors) = (column(&batch, CONTENT_HASH)?, column(&batch, ERROR)?);
    if known.is_empty() && hashes.null_count() == errors.len() - errors.null_count() {
        return Ok(batch);
    }
    let mut stays: Vec<bool> = (0..batch.num_rows()).map(|row| hashes.is_valid(row) || errors.is_valid(row)).collect();
    for_each_key(&batch, |row, key| {
        stays[row] = !known.contains(key)?;
        Ok(())
    })?;
    if stays.iter().all(|&stays| stays) {
        return Ok(batch);
    }
    Ok(filter_record_batch(&batch, &BooleanArray::from(stays))?)
}

#[cfg(test)]
mod tests {
    use datafusion::{common::stats::Precision, physical_plan::collect};
    use polylance_schema::source_schema;

    use super::{
        super::testing::{documents, memory, metric, shown},
        *,
    };

    /// Documents in batches of two over a table that has one of them as it is.
    fn join(rows: &[(&str, &str)], known: usize) -> AntiJoinExec {
        let batch = documents(rows);
        let keys = batch.project(&[0, 2]).unwrap().slice(known, 1);
        let keys = RecordBatch::try_new(key_schema(), keys.columns().to_vec()).unwrap();
        let pairs: Vec<_> =
            (0..rows.len()).step_by(2).map(|start| batch.slice(start, 2.min(rows.len() - start))).collect();
        AntiJoinExec::try_new(memory(key_schema(), &[keys]), memory(source_schema(&[]), &pairs)).unwrap()
    }

    #[tokio::test]
    async fn batches_are_returned_as_they_come_and_are_not_gathered() {
        let long = "long".repeat(1000);
        let ids: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        let rows: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), long.as_str())).collect();
        let plan: Arc<dyn ExecutionPlan> = Arc::new(join(&rows, 3));
        let batches = collect(Arc::clone(&plan), Arc::new(TaskContext::default())).await.unwrap();
        let ids: Vec<Vec<_>> =
            batches.iter().map(|batch| batch[DOC_ID].as_string::<i32>().iter().flatten().collect()).collect();
        assert_eq!(ids, [vec!["0", "1"], vec!["2"], vec!["4", "5"], vec!["6", "7"], vec!["8", "9"]]);
        assert!(batches.iter().all(|batch| batch[CONTENT_HASH].null_count() == 0));
        assert_eq!((metric(&plan, ROWS_SKIPPED), metric(&plan, "output_rows")), (1, 9));
        assert!(metric(&plan, "elapsed_compute") > 0 && metric(&plan, BUILD_TIME) > 0);
    }

    #[test]
    fn the_number_of_rows_is_an_estimate() {
        let join = join(&[("a", "one"), ("b", "two"), ("c", "three")], 1);
        assert_eq!(join.partition_statistics(None).unwrap().num_rows, Precision::Inexact(3));
        let (line, tree) = shown(&join);
        assert_eq!(
            (line.as_str(), tree.as_str()),
            ("AntiJoinExec: on=[doc_id, content_hash]", "on=[doc_id, content_hash]\n")
        );
    }
}
