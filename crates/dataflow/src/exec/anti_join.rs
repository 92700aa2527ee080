//! Drops the documents that the table has already.
//!
//! in:  `key_schema()`, the table's documents, and `source_schema(keep)`
//! out: the second input without the rows whose `doc_id` and `content_hash` are among the keys
//!
//! Rows keep their order. A refused row has no hash and stays; a row with neither hash nor error is of an unchanged
//! file, whose rows the table has, and is dropped. Keys take 128 bits each and spill to disk when the session's memory
//! is too small for them. A batch is returned before the next one is read: DataFusion's `HashJoinExec` cannot spill,
//! and it gathers thousands of rows for a batch, which are gigabytes with long documents.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use async_stream::try_stream;
use datafusion::{
    error::{DataFusionError, Result},
    execution::{
        SendableRecordBatchStream, TaskContext,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    physical_plan::{
        DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, PlanProperties, Statistics,
        coalesce_partitions::CoalescePartitionsExec,
        execution_plan::CardinalityEffect,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput, Time},
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

/// The documents of a version of a table, for several plans at the same time.
pub struct KnownDocuments(Mutex<KeySet>);

impl KnownDocuments {
    /// Reads the table's documents, in any order. They take memory of `reservation` as long as it grants some.
    ///
    /// # Errors
    /// When the keys cannot be read, or their temporary file cannot be written.
    pub async fn read(keys: SendableRecordBatchStream, reservation: MemoryReservation) -> Result<Self> {
        Self::read_timed(keys, reservation, &Time::new()).await
    }

    async fn read_timed(
        mut keys: SendableRecordBatchStream,
        reservation: MemoryReservation,
        elapsed_compute: &Time,
    ) -> Result<Self> {
        let mut known = KeySetBuilder::new(reservation);
        while let Some(batch) = keys.try_next().await? {
            let _timer = elapsed_compute.timer();
            for_each_key(&batch, |_, key| known.insert(key))?;
        }
        drop(keys);
        let _timer = elapsed_compute.timer();
        Ok(Self(Mutex::new(known.finish().map_err(datafusion_error::temporary)?)))
    }

    /// The rows of a batch that the table does not have.
    fn without_known(&self, batch: RecordBatch) -> Result<RecordBatch> {
        drop_known(batch, &mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for KnownDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownDocuments").finish_non_exhaustive()
    }
}

/// Where the documents of the table come from.
#[derive(Debug)]
enum Keys {
    /// A plan reads them.
    Plan(Arc<dyn ExecutionPlan>),
    /// They were read before.
    Known(Arc<KnownDocuments>),
}

/// Keeps the documents that are not among the keys.
#[derive(Debug)]
pub struct AntiJoinExec {
    keys: Keys,
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
        let keys = Keys::Plan(if single { keys } else { Arc::new(CoalescePartitionsExec::new(keys)) });
        let properties = operator::properties(input.schema());
        Ok(Self { keys, input, properties, metrics: ExecutionPlanMetricsSet::new() })
    }

    /// `known` are the table's documents, `input` yields `source_schema(keep)`.
    pub fn with_known(known: Arc<KnownDocuments>, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = operator::properties(input.schema());
        Self { keys: Keys::Known(known), input, properties, metrics: ExecutionPlanMetricsSet::new() }
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
        vec![Distribution::SinglePartition; self.children().len()]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        match &self.keys {
            Keys::Plan(_) => vec![false, true],
            Keys::Known(_) => vec![true],
        }
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        match &self.keys {
            Keys::Plan(keys) => vec![keys, &self.input],
            Keys::Known(_) => vec![&self.input],
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if let Keys::Known(known) = &self.keys {
            let input = operator::only_child(self.name(), children)?;
            return Ok(Arc::new(Self::with_known(Arc::clone(known), input)));
        }
        let [keys, input] =
            <[_; 2]>::try_from(children).map_err(|_| DataFusionError::Plan("AntiJoinExec has two inputs".into()))?;
        Ok(Arc::new(Self::try_new(keys, input)?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let skipped = MetricBuilder::new(&self.metrics).counter(ROWS_SKIPPED, partition);
        let build_time = MetricBuilder::new(&self.metrics).subset_time(BUILD_TIME, partition);
        let reservation = MemoryConsumer::new(self.name()).register(context.memory_pool());
        let (keys, known) = match &self.keys {
            Keys::Plan(keys) => (Some(keys.execute(0, Arc::clone(&context))?), None),
            Keys::Known(known) => (None, Some(Arc::clone(known))),
        };
        let mut input = self.input.execute(partition, context)?;
        let batches = try_stream! {
            let build = build_time.timer();
            let read = match keys {
                Some(keys) => {
                    let elapsed = baseline.elapsed_compute();
                    Some(Arc::new(KnownDocuments::read_timed(keys, reservation, elapsed).await?))
                }
                None => None,
            };
            let known = read.or(known);
            build.done();
            while let Some(batch) = input.try_next().await? {
                let rows = batch.num_rows();
                let rest = {
                    let _timer = baseline.elapsed_compute().timer();
                    match &known {
                        Some(known) => known.without_known(batch)?,
                        None => batch,
                    }
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

    #[tokio::test]
    async fn documents_that_were_read_once_serve_several_plans() {
        let batch = documents(&[("a", "one"), ("b", "two"), ("c", "three")]);
        let keys = batch.project(&[0, 2]).unwrap().slice(1, 1);
        let keys = RecordBatch::try_new(key_schema(), keys.columns().to_vec()).unwrap();
        let context = Arc::new(TaskContext::default());
        let reservation = MemoryConsumer::new("keys").register(context.memory_pool());
        let stream = memory(key_schema(), &[keys]).execute(0, Arc::clone(&context)).unwrap();
        let known = Arc::new(KnownDocuments::read(stream, reservation).await.unwrap());
        for _ in 0..2 {
            let input = memory(source_schema(&[]), std::slice::from_ref(&batch));
            let join: Arc<dyn ExecutionPlan> = Arc::new(AntiJoinExec::with_known(Arc::clone(&known), input));
            let children: Vec<_> = join.children().into_iter().map(Arc::clone).collect();
            assert_eq!(children.len(), 1);
            let join = join.with_new_children(children).unwrap();
            let found = collect(join, Arc::clone(&context)).await.unwrap();
            let ids: Vec<_> = found[0][DOC_ID].as_string::<i32>().iter().flatten().collect();
            assert_eq!(ids, ["a", "c"]);
        }
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
