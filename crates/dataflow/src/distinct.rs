//! Refuses the second and every later row of an id.
//!
//! in:  `source_schema(keep)`
//! out: the same rows; a repeated id has its `_error` set and no `content_hash`
//!
//! Without this operator two rows of one id would replace each other in every run.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::nullif,
};
use datafusion::{
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::StreamExt;
use polylance_schema::columns::{CONTENT_HASH, DOC_ID, ERROR};

use crate::{
    batches::{column, with_errors},
    operator,
    seen::SeenIds,
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
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DistinctIdExec")
    }
}

impl ExecutionPlan for DistinctIdExec {
    fn name(&self) -> &'static str {
        "DistinctIdExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(operator::only_child(self.name(), children)?)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let mut seen = SeenIds::new();
        let batches = self.input.execute(partition, context)?.map(move |batch| {
            let timer = baseline.elapsed_compute().timer();
            let batch = distinct(&batch?, &mut seen)?;
            timer.done();
            Ok(batch.record_output(&baseline))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

fn distinct(batch: &RecordBatch, seen: &mut SeenIds) -> Result<RecordBatch> {
    let ids = column(batch, DOC_ID)?.as_string::<i32>();
    let refused = column(batch, ERROR)?;
    let mut messages = vec![None; batch.num_rows()];
    for (row, message) in messages.iter_mut().enumerate() {
        // A row that was refused before did not use its id.
        if refused.is_null(row) && ids.is_valid(row) && !seen.insert(ids.value(row))? {
            *message = Some(format!("duplicate id {:?}: an earlier row of this run has it", ids.value(row)));
        }
    }
    if messages.iter().all(Option::is_none) {
        return Ok(batch.clone());
    }
    let repeated: BooleanArray = messages.iter().map(|message| Some(message.is_some())).collect();
    let batch = with_errors(batch, "distinct", &messages)?;
    let at = batch.schema_ref().index_of(CONTENT_HASH)?;
    let mut columns = batch.columns().to_vec();
    columns[at] = nullif(&columns[at], &repeated)?;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}
