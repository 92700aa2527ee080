//! A join repeats the rows of its inputs: a check limits the size of the rows that enter it.

use std::{fmt, sync::Arc};

use arrow::array::RecordBatch;
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    config::ConfigOptions,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, Statistics, stream::RecordBatchStreamAdapter,
    },
};
use futures::TryStreamExt;

use super::{refusal::too_large, sizes::bytes};

/// Maximum size of a row that enters a join, in bytes: a batch of its output may hold 1,024 copies.
const MAX_JOIN_ROW_BYTES: u64 = 256 << 10;

/// Inserts a check below each join.
#[derive(Debug)]
pub(crate) struct CheckJoins;

impl PhysicalOptimizerRule for CheckJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let checked = plan.transform_up(|node| {
            // The name of every join, and of no other operator, contains it.
            if !node.name().contains("Join") {
                return Ok(Transformed::no(node));
            }
            let inputs = node.children().into_iter().map(|input| -> Arc<dyn ExecutionPlan> {
                Arc::new(SmallRowsExec { properties: Arc::clone(input.properties()), input: Arc::clone(input) })
            });
            let inputs = inputs.collect();
            Ok(Transformed::yes(node.with_new_children(inputs)?))
        });
        Ok(checked?.data)
    }

    fn name(&self) -> &'static str {
        "check_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// in: any rows. out: the same, or an error at a row that is too large.
#[derive(Debug)]
struct SmallRowsExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for SmallRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SmallRowsExec")
    }
}

impl ExecutionPlan for SmallRowsExec {
    fn name(&self) -> &'static str {
        "SmallRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else {
            return Err(DataFusionError::Internal("SmallRowsExec has one input".to_owned()));
        };
        Ok(Arc::new(Self { properties: Arc::clone(input.properties()), input }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context)?;
        let schema = rows.schema();
        let checked = rows.and_then(|batch| std::future::ready(check(batch)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, checked)))
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        self.input.partition_statistics(partition)
    }
}

fn check(batch: RecordBatch) -> Result<RecordBatch> {
    // Most batches are small as a whole.
    if batch.get_array_memory_size() as u64 <= MAX_JOIN_ROW_BYTES {
        return Ok(batch);
    }
    let columns: Vec<Vec<u64>> = batch.columns().iter().map(bytes).collect();
    let row = |row: usize| columns.iter().map(|sizes| sizes[row]).sum::<u64>();
    if (0..batch.num_rows()).any(|at| row(at) > MAX_JOIN_ROW_BYTES) {
        let kib = MAX_JOIN_ROW_BYTES >> 10;
        return Err(too_large(format!("a row of more than {kib} KiB cannot be joined: select fewer columns")));
    }
    Ok(batch)
}
