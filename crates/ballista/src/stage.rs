//! Runs the stages of splits on an executor, and refuses all others.

use std::sync::Arc;

use ballista_core::JobId;
use ballista_executor::execution_engine::{DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor};
use datafusion::{error::Result, physical_plan::ExecutionPlan, prelude::SessionConfig};

use crate::plan::{foreign, is_split_stage};

/// Ballista's engine for the stages of splits.
#[derive(Default)]
pub(crate) struct SplitStages(DefaultExecutionEngine);

impl ExecutionEngine for SplitStages {
    fn create_query_stage_exec(
        &self,
        job_id: JobId,
        stage_id: usize,
        partition_id: usize,
        plan: Arc<dyn ExecutionPlan>,
        work_dir: &str,
        config: &SessionConfig,
    ) -> Result<Arc<dyn QueryStageExecutor>> {
        if !is_split_stage(&plan) {
            tracing::warn!("a plan that is no split was refused");
            return Err(foreign());
        }
        self.0.create_query_stage_exec(job_id, stage_id, partition_id, plan, work_dir, config)
    }
}
