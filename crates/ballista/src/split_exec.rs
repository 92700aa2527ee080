//! The only operator that travels: a task, and a row when it is done.
//!
//! in:  nothing
//! out: `done: Boolean`, one row
//!
//! The scheduler looks at none of it. On an executor, the [`SplitRunner`] of the session embeds the split.

use std::{fmt, sync::Arc};

use arrow::{
    array::{BooleanArray, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
        metrics::{ExecutionPlanMetricsSet, MetricsSet},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::stream;
use polylance_cluster::{Envelope, SplitRunner};
use polylance_dataflow::operator::{fmt_operator, properties};

/// Embeds a split where it is executed.
#[derive(Debug)]
pub(crate) struct SplitExec {
    task: Arc<[u8]>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("done", DataType::Boolean, false)]))
}

impl SplitExec {
    pub(crate) fn new(task: Arc<[u8]>) -> Self {
        Self { task, properties: properties(schema()), metrics: ExecutionPlanMetricsSet::new() }
    }

    pub(crate) fn task(&self) -> &[u8] {
        &self.task
    }
}

impl DisplayAs for SplitExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Envelope::open(&self.task) {
            Ok((Envelope { table, run_id, result, .. }, _)) => {
                fmt_operator(format, f, self.name(), &[("table", &table), ("run_id", &run_id), ("result", &result)])
            }
            Err(_) => fmt_operator(format, f, self.name(), &[]),
        }
    }
}

impl ExecutionPlan for SplitExec {
    fn name(&self) -> &'static str {
        "SplitExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { Err(DataFusionError::Plan("SplitExec has no input".into())) }
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let runner = context.session_config().get_extension::<SplitRunner>();
        let missing = || DataFusionError::Plan("the session has no SplitRunner: this is no executor".to_owned());
        let (runner, task) = (runner.ok_or_else(missing)?, Arc::clone(&self.task));
        let done = stream::once(async move {
            runner.run(task).await?;
            Ok(RecordBatch::try_new(schema(), vec![Arc::new(BooleanArray::from(vec![true]))])?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema(), done)))
    }
}
