//! The end of every embedding plan.

use std::sync::Arc;

use datafusion::{error::Result, physical_plan::ExecutionPlan};

use crate::{LanceCommitExec, LanceWriteExec, TableTarget};

/// Writes `input` (of [`polylance_schema::encoded_schema`], one partition) to the target's table.
///
/// The plan yields one row a commit, of [`crate::CommitReport`]: `version`, `documents`, `chunks`,
/// `quarantined`, `tokens`. A window of nothing but bad rows makes no version of the table; its row
/// carries the version that is already there.
///
/// # Errors
/// When the input has other columns than the target, or more than one partition.
pub fn plan_commit(input: Arc<dyn ExecutionPlan>, target: TableTarget) -> Result<Arc<dyn ExecutionPlan>> {
    let write = LanceWriteExec::try_new(input, target.clone())?;
    Ok(Arc::new(LanceCommitExec::try_new(Arc::new(write), target)?))
}

/// Rows that the plan has refused so far, committed or not.
pub fn quarantined(plan: &dyn ExecutionPlan) -> u64 {
    let own = || plan.metrics()?.sum_by_name(crate::write::QUARANTINED).map(|value| value.as_usize() as u64);
    if plan.is::<LanceWriteExec>() {
        return own().unwrap_or_default();
    }
    plan.children().into_iter().map(|child| quarantined(child.as_ref())).sum()
}
