//! The end of every embedding plan.

use std::sync::Arc;

use datafusion::{error::Result, physical_plan::ExecutionPlan};

use crate::{
    commit::LanceCommitExec,
    table::target::TableTarget,
    write::{LanceWriteExec, QUARANTINED_METRIC},
};

/// Writes `input` (of [`polylance_schema::encoded_schema`], one partition) to the target's table.
///
/// The plan yields a row of [`crate::CommitReport`] per window: `version`, `documents`, `chunks`, `quarantined`,
/// `tokens`. A window of which all rows failed makes no version of the table; its `version` is null.
///
/// # Errors
/// When the columns of the input differ from the target's, or when it has more than one partition.
pub fn plan_commit(input: Arc<dyn ExecutionPlan>, target: TableTarget) -> Result<Arc<dyn ExecutionPlan>> {
    let write = LanceWriteExec::try_new(input, target.clone())?;
    Ok(Arc::new(LanceCommitExec::try_new(Arc::new(write), target)?))
}

/// Documents that the running plan has sent to the quarantine so far, committed or not.
pub fn quarantined_so_far(plan: &dyn ExecutionPlan) -> u64 {
    let own = plan.metrics().and_then(|metrics| metrics.sum_by_name(QUARANTINED_METRIC));
    if let Some(own) = own {
        return own.as_usize() as u64;
    }
    plan.children().into_iter().map(|child| quarantined_so_far(child.as_ref())).sum()
}
