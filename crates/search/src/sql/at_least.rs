//! Rows of an index, or all rows compared where the index yields too few.

use std::{fmt, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    common::internal_err,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::EquivalenceProperties,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, execute_stream,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, TryStreamExt, stream};

/// A search of an index whose walk may end before it has found as many rows as there are.
///
/// in: two plans with the same columns. out: the rows of the first, if they are `k`, else those of the second.
#[derive(Debug)]
pub(crate) struct AtLeast {
    k: usize,
    index: Arc<dyn ExecutionPlan>,
    every_row: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl AtLeast {
    pub(crate) fn new(k: usize, index: Arc<dyn ExecutionPlan>, every_row: Arc<dyn ExecutionPlan>) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(index.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        ));
        Self { k, index, every_row, properties }
    }
}

impl DisplayAs for AtLeast {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AtLeastExec: k={}", self.k)
    }
}

impl ExecutionPlan for AtLeast {
    fn name(&self) -> &'static str {
        "AtLeastExec"
    }

    fn schema(&self) -> SchemaRef {
        self.index.schema()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.index, &self.every_row]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 2]>::try_from(children) {
            Ok([index, every_row]) => Ok(Arc::new(Self::new(self.k, index, every_row))),
            Err(other) => internal_err!("AtLeastExec has two children, not {}", other.len()),
        }
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (k, index, every_row) = (self.k, Arc::clone(&self.index), Arc::clone(&self.every_row));
        let rows = async move {
            let found: Vec<RecordBatch> = execute_stream(index, Arc::clone(&context))?.try_collect().await?;
            if found.iter().map(RecordBatch::num_rows).sum::<usize>() >= k {
                return Ok::<_, DataFusionError>(
                    stream::iter(found.into_iter().map(Ok::<_, DataFusionError>)).left_stream(),
                );
            }
            Ok(execute_stream(every_row, context)?.right_stream())
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::once(rows).try_flatten())))
    }
}
