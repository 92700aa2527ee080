//! Which plans a cluster runs: splits, and nothing else.
//!
//! DataFusion's plans can read and write every file that an executor can. Whoever reaches the scheduler's port could
//! send one.

use std::sync::Arc;

use ballista_core::execution_plans::ShuffleWriterExec;
use datafusion::{error::DataFusionError, physical_plan::ExecutionPlan};

use crate::split_exec::SplitExec;

/// The split that a plan is, if it is one.
pub(crate) fn split_of(plan: &Arc<dyn ExecutionPlan>) -> Option<&SplitExec> {
    plan.downcast_ref()
}

/// Whether a plan is the stage of a split, as the scheduler plans it.
pub(crate) fn is_split_stage(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<ShuffleWriterExec>() && plan.children().first().is_some_and(|child| split_of(child).is_some())
}

/// The error for any other plan.
pub(crate) fn foreign() -> DataFusionError {
    DataFusionError::Plan("this cluster runs the splits of polylance, and no other plans".to_owned())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::physical_plan::empty::EmptyExec;

    use super::*;

    #[test]
    fn other_plans_are_no_splits() {
        let other: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::new(Schema::empty())));
        let stage = ShuffleWriterExec::try_new("job".into(), 1, Arc::clone(&other), String::new(), None).unwrap();
        assert!(split_of(&other).is_none() && !is_split_stage(&other) && !is_split_stage(&(Arc::new(stage) as _)));
        let split: Arc<dyn ExecutionPlan> = Arc::new(SplitExec::new(b"{}"[..].into()));
        assert!(split_of(&split).is_some() && !is_split_stage(&split));
    }
}
