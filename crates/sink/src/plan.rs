//! The end of every embedding plan.

use std::sync::Arc;

use datafusion::{error::Result, physical_plan::ExecutionPlan};

use crate::{LanceCommitExec, LanceWriteExec, TableTarget};

/// Writes `input` (of [`polylance_schema::encoded_schema`], one partition) to the target's table.
///
/// The plan yields one row a commit, of [`crate::commit_schema`]: `version`, `documents`, `chunks`,
/// `quarantined`, `tokens`. A window of nothing but bad rows makes no version of the table; its row
/// carries the version that is already there.
///
/// # Errors
/// When the input has other columns than the target, or more than one partition.
pub fn plan_commit(input: Arc<dyn ExecutionPlan>, target: TableTarget) -> Result<Arc<dyn ExecutionPlan>> {
    let write = LanceWriteExec::try_new(input, target.clone())?;
    Ok(Arc::new(LanceCommitExec::try_new(Arc::new(write), target)?))
}
