//! Reads from an index, or compares all rows if the index yields too few.

use std::{fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::internal_err,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext, memory_pool::MemoryConsumer},
    physical_expr::EquivalenceProperties,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, execute_stream,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, TryStreamExt, stream};

/// A search of a graph index, whose walk may end before it has found `k` rows.
///
/// in: two plans with the same columns. out: the rows of the first if there are at least `k`, else those of the second.
#[derive(Debug)]
pub(super) struct AtLeastExec {
    k: usize,
    index: Arc<dyn ExecutionPlan>,
    every_row: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl AtLeastExec {
    pub(super) fn new(k: usize, index: Arc<dyn ExecutionPlan>, every_row: Arc<dyn ExecutionPlan>) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(index.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        ));
        Self { k, index, every_row, properties }
    }
}

impl DisplayAs for AtLeastExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AtLeastExec: k={}", self.k)
    }
}

impl ExecutionPlan for AtLeastExec {
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
            let memory = MemoryConsumer::new("AtLeastExec").register(context.memory_pool());
            let (mut found, mut rows) = (Vec::new(), 0);
            let mut batches = execute_stream(index, Arc::clone(&context))?;
            while let Some(batch) = batches.try_next().await? {
                memory.try_grow(batch.get_array_memory_size())?;
                rows += batch.num_rows();
                found.push(batch);
            }
            if rows >= k {
                // The memory is reserved for as long as the stream lives.
                let found = stream::iter(found).map(move |batch| {
                    let _reserved = &memory;
                    Ok::<_, DataFusionError>(batch)
                });
                return Ok::<_, DataFusionError>(found.left_stream());
            }
            drop((found, memory));
            Ok(execute_stream(every_row, context)?.right_stream())
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::once(rows).try_flatten())))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{RecordBatch, UInt64Array};
    use datafusion::{
        datasource::memory::MemorySourceConfig,
        execution::{
            context::{SessionConfig, SessionContext},
            runtime_env::RuntimeEnvBuilder,
        },
        physical_plan::collect,
    };

    use super::*;

    async fn rows(k: usize, index: u64, every_row: u64, memory: usize) -> Result<usize> {
        let plan = |rows: u64| -> Arc<dyn ExecutionPlan> {
            let batch =
                RecordBatch::try_from_iter([("row", Arc::new(UInt64Array::from_iter_values(0..rows)) as _)]).unwrap();
            let schema = batch.schema();
            MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None).unwrap()
        };
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(memory, 1.0).build_arc()?;
        let session = SessionContext::new_with_config_rt(SessionConfig::new(), runtime);
        let found = collect(Arc::new(AtLeastExec::new(k, plan(index), plan(every_row))), session.task_ctx()).await?;
        assert_eq!(session.runtime_env().memory_pool.reserved(), 0);
        Ok(found.iter().map(RecordBatch::num_rows).sum())
    }

    #[tokio::test]
    async fn all_rows_are_compared_when_the_index_yields_too_few() {
        assert_eq!(rows(2, 2, 3, 1 << 20).await.unwrap(), 2);
        assert_eq!(rows(3, 2, 3, 1 << 20).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn buffered_rows_count_against_the_memory_of_statements() {
        let error = rows(10_000, 10_000, 0, 1 << 10).await.unwrap_err();
        assert!(matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)), "{error}");
    }
}
