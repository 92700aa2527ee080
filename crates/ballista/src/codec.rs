//! How plans travel: a [`SplitExec`] as the bytes of its task, Ballista's own operators as Ballista writes them.

use std::sync::Arc;

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::{error::Result, execution::TaskContext, physical_plan::ExecutionPlan};
use datafusion_proto::physical_plan::PhysicalExtensionCodec;

use crate::split_exec::SplitExec;

/// Precedes the bytes of a task.
const MAGIC: &[u8] = b"\0polylance-split\0";

/// Whether the bytes of an operator are those of a split.
pub(crate) fn is_split(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The codec of client, scheduler and executors. Decoding never fails for a task: Ballista removes an executor that
/// cannot decode a plan. A task that an executor cannot read becomes the result of its split.
#[derive(Debug, Default)]
pub(crate) struct SplitCodec {
    ballista: BallistaPhysicalExtensionCodec,
}

impl PhysicalExtensionCodec for SplitCodec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        ctx: &TaskContext,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match buf.strip_prefix(MAGIC) {
            Some(task) => Ok(Arc::new(SplitExec::new(task.into()))),
            None => self.ballista.try_decode(buf, inputs, ctx),
        }
    }

    fn try_encode(&self, node: Arc<dyn ExecutionPlan>, buf: &mut Vec<u8>) -> Result<()> {
        let Some(split) = node.downcast_ref::<SplitExec>() else { return self.ballista.try_encode(node, buf) };
        buf.extend_from_slice(MAGIC);
        buf.extend_from_slice(split.task());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ballista_core::execution_plans::ShuffleWriterExec;
    use datafusion_proto::{physical_plan::AsExecutionPlan, protobuf::PhysicalPlanNode};

    use super::*;
    use crate::plan::{is_split_stage, split_of};

    #[test]
    fn a_task_arrives_alone_and_in_a_stage_even_if_it_cannot_be_read() {
        let context = TaskContext::default();
        let codec = SplitCodec::default();
        for task in [&b"{\"format\":99}"[..], b"", b"\xff"] {
            let plan: Arc<dyn ExecutionPlan> = Arc::new(SplitExec::new(task.into()));
            let travel = |plan: Arc<dyn ExecutionPlan>| {
                let node = PhysicalPlanNode::try_from_physical_plan(plan, &codec).unwrap();
                node.try_into_physical_plan(&context, &codec).unwrap()
            };
            let found = travel(Arc::clone(&plan));
            assert_eq!(found.downcast_ref::<SplitExec>().unwrap().task(), task);
            let stage = ShuffleWriterExec::try_new("job".into(), 1, plan, String::new(), None).unwrap();
            let found = travel(Arc::new(stage));
            assert!(is_split_stage(&found));
            assert!(split_of(&found).is_none());
        }
    }
}
