//! Refuses the second and every later row of an id.
//!
//! in:  `source_schema(keep)`
//! out: the same rows; a repeated id has its `_error` set and no `content_hash`
//!
//! Without this operator two rows of one id would replace each other in every run. When the source has come to its
//! end, its ids are left in the session's [`SourceIds`], if there is one.

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
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput},
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
    datafusion_error,
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
        let wanted = SourceIds::of(&context);
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
            if let Some(wanted) = wanted {
                wanted.leave(ids);
            }
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
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
