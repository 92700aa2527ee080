//! Refuses the second and every later row of an id.
//!
//! in:  `source_schema(keep)`
//! out: the same rows; a repeated id has its `_error` set and no `content_hash`
//!
//! Without this operator two rows of one id would replace each other in every run. At the end of the source its ids
//! are left in the session's [`SourceIds`], if there is one.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::nullif,
};
use async_stream::try_stream;
use datafusion::{
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, Statistics,
        execution_plan::CardinalityEffect,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::TryStreamExt;
use polylance_schema::{
    Stage,
    columns::{CONTENT_HASH, DOC_ID, ERROR},
};

use super::operator;
use crate::{
    batches::{column, with_errors},
    datafusion_error, single_child_plan,
    spill::source_ids::{AllIds, SourceIds},
};

/// Lets each id through once.
#[derive(Debug)]
pub struct DistinctIdExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl DistinctIdExec {
    /// Over a scan.
    pub fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = operator::properties(input.schema());
        Self { input, properties, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for DistinctIdExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        operator::fmt_operator(format, f, "DistinctIdExec", &[])
    }
}

impl ExecutionPlan for DistinctIdExec {
    single_child_plan!(DistinctIdExec, |input| Self::new(input));

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let source_ids = SourceIds::of(&context);
        let mut input = self.input.execute(partition, context)?;
        let batches = try_stream! {
            let mut ids = AllIds::new();
            while let Some(batch) = input.try_next().await? {
                let batch = {
                    let _timer = baseline.elapsed_compute().timer();
                    distinct(&batch, &mut ids)?
                };
                yield batch.record_output(&baseline);
            }
            if let Some(source_ids) = source_ids {
                source_ids.set(ids);
            }
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let rows = self.input.partition_statistics(partition)?.num_rows;
        Ok(operator::row_statistics(&self.schema(), rows))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

fn distinct(batch: &RecordBatch, seen: &mut AllIds) -> Result<RecordBatch> {
    let ids = column(batch, DOC_ID)?.as_string::<i32>();
    let refused = column(batch, ERROR)?;
    let mut messages = vec![None; batch.num_rows()];
    for (row, message) in messages.iter_mut().enumerate() {
        let id = ids.is_valid(row).then(|| ids.value(row));
        // A row that was refused before did not use its id.
        let (Some(id), true) = (id, refused.is_null(row)) else {
            seen.insert_refused(id).map_err(datafusion_error::temporary)?;
            continue;
        };
        if !seen.insert(id).map_err(datafusion_error::temporary)? {
            *message = Some(format!("duplicate id {id:?}: an earlier row of this run has it"));
        }
    }
    if messages.iter().all(Option::is_none) {
        return Ok(batch.clone());
    }
    let repeated: BooleanArray = messages.iter().map(|message| Some(message.is_some())).collect();
    let batch = with_errors(batch, Stage::Distinct, &messages)?;
    let at = batch.schema_ref().index_of(CONTENT_HASH)?;
    let mut columns = batch.columns().to_vec();
    columns[at] = nullif(&columns[at], &repeated)?;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

#[cfg(test)]
mod tests {
    use datafusion::{common::stats::Precision, prelude::SessionConfig};
    use polylance_schema::source_schema;

    use super::{
        super::testing::{documents, memory, messages, metric, rows, shown, texts},
        *,
    };

    #[tokio::test]
    async fn the_second_row_of_an_id_is_refused_and_the_ids_are_left_in_the_session() {
        let batches = [documents(&[("a", "one"), ("b", "two")]), documents(&[("a", "three"), ("c", "four")])];
        let plan: Arc<dyn ExecutionPlan> = Arc::new(DistinctIdExec::new(memory(source_schema(&[]), &batches)));
        let left = Arc::new(SourceIds::default());
        let config = SessionConfig::new().with_extension(Arc::clone(&left));
        let context = Arc::new(TaskContext::default().with_session_config(config));
        let found = rows(&plan, context).await.unwrap();
        assert_eq!(texts(&found, DOC_ID), ["a", "b", "a", "c"]);
        let refused: Vec<bool> = messages(&found).iter().map(Option::is_some).collect();
        assert_eq!(refused, [false, false, true, false]);
        assert!(found[CONTENT_HASH].is_null(2) && found[CONTENT_HASH].null_count() == 1);
        assert!(left.take().unwrap().contains("c").unwrap());
        assert!(metric(&plan, "elapsed_compute") > 0 && metric(&plan, "output_rows") == 4);
    }

    #[test]
    fn rows_are_as_many_as_in_the_input() {
        let input = memory(source_schema(&[]), &[documents(&[("a", "one"), ("a", "two")])]);
        let distinct = DistinctIdExec::new(input);
        assert_eq!(distinct.partition_statistics(None).unwrap().num_rows, Precision::Exact(2));
        assert_eq!(shown(&distinct), ("DistinctIdExec".to_owned(), String::new()));
    }
}
