//! The scheduler's service, for splits alone.

use std::sync::Arc;

use ballista_core::serde::protobuf::{
    CancelJobParams, CancelJobResult, CleanJobDataParams, CleanJobDataResult, CreateUpdateSessionParams,
    CreateUpdateSessionResult, ExecuteQueryParams, ExecuteQueryResult, ExecutorStoppedParams, ExecutorStoppedResult,
    GetJobMetricsParams, GetJobMetricsResult, GetJobStatusParams, GetJobStatusResult, HeartBeatParams, HeartBeatResult,
    PollWorkParams, PollWorkResult, RegisterExecutorParams, RegisterExecutorResult, RemoveSessionParams,
    RemoveSessionResult, UpdateTaskStatusParams, UpdateTaskStatusResult, execute_query_params::Query,
    scheduler_grpc_server::SchedulerGrpc,
};
use datafusion_proto::{
    physical_plan::AsExecutionPlan,
    protobuf::{PhysicalPlanNode, physical_plan_node::PhysicalPlanType},
};
use futures::future::BoxFuture;
use tonic::{Request, Response, Status};

use crate::{codec::is_split, plan::foreign};

/// A scheduler that takes splits, and refuses all other plans before it plans or stores them.
#[derive(Debug, Clone)]
pub(crate) struct SplitsOnly<S>(Arc<S>);

impl<S> SplitsOnly<S> {
    pub(crate) fn new(scheduler: S) -> Self {
        Self(Arc::new(scheduler))
    }
}

/// Refuses a request whose plan is no split.
fn check(request: &Request<ExecuteQueryParams>) -> Result<(), Status> {
    let Some(Query::PhysicalPlan(plan)) = &request.get_ref().query else { return Err(refused()) };
    // Nothing is decoded: that opens the files of some plans.
    match PhysicalPlanNode::try_decode(plan).map(|node| node.physical_plan_type) {
        Ok(Some(PhysicalPlanType::Extension(split))) if is_split(&split.node) && split.inputs.is_empty() => Ok(()),
        _ => Err(refused()),
    }
}

fn refused() -> Status {
    tracing::warn!("a plan that is no split was refused");
    Status::permission_denied(foreign().to_string())
}

/// Methods that are those of the scheduler, in the form that `async_trait` gives them.
macro_rules! delegate {
    ($($method:ident: $request:ty => $response:ty),* $(,)?) => {
        $(
            fn $method<'life0, 'async_trait>(
                &'life0 self,
                request: Request<$request>,
            ) -> BoxFuture<'async_trait, Result<Response<$response>, Status>>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                self.0.$method(request)
            }
        )*
    };
}

#[tonic::async_trait]
impl<S: SchedulerGrpc> SchedulerGrpc for SplitsOnly<S> {
    type ExecuteQueryPushStream = S::ExecuteQueryPushStream;

    async fn execute_query_push(
        &self,
        request: Request<ExecuteQueryParams>,
    ) -> Result<Response<Self::ExecuteQueryPushStream>, Status> {
        check(&request)?;
        self.0.execute_query_push(request).await
    }

    async fn execute_query(
        &self,
        request: Request<ExecuteQueryParams>,
    ) -> Result<Response<ExecuteQueryResult>, Status> {
        check(&request)?;
        self.0.execute_query(request).await
    }

    delegate! {
        poll_work: PollWorkParams => PollWorkResult,
        register_executor: RegisterExecutorParams => RegisterExecutorResult,
        heart_beat_from_executor: HeartBeatParams => HeartBeatResult,
        update_task_status: UpdateTaskStatusParams => UpdateTaskStatusResult,
        create_update_session: CreateUpdateSessionParams => CreateUpdateSessionResult,
        remove_session: RemoveSessionParams => RemoveSessionResult,
        get_job_status: GetJobStatusParams => GetJobStatusResult,
        get_job_metrics: GetJobMetricsParams => GetJobMetricsResult,
        executor_stopped: ExecutorStoppedParams => ExecutorStoppedResult,
        cancel_job: CancelJobParams => CancelJobResult,
        clean_job_data: CleanJobDataParams => CleanJobDataResult,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::physical_plan::{ExecutionPlan, empty::EmptyExec};

    use super::*;
    use crate::{codec::SplitCodec, split_exec::SplitExec};

    fn request(query: Option<Query>) -> Request<ExecuteQueryParams> {
        Request::new(ExecuteQueryParams { query, ..ExecuteQueryParams::default() })
    }

    fn encoded(plan: Arc<dyn ExecutionPlan>) -> Query {
        let node = PhysicalPlanNode::try_from_physical_plan(plan, &SplitCodec::default()).unwrap();
        let mut bytes = Vec::new();
        node.try_encode(&mut bytes).unwrap();
        Query::PhysicalPlan(bytes)
    }

    #[test]
    fn splits_are_taken_and_other_queries_are_refused() {
        let split = encoded(Arc::new(SplitExec::new(b"{}"[..].into())));
        assert!(check(&request(Some(split))).is_ok());
        let other = encoded(Arc::new(EmptyExec::new(Arc::new(Schema::empty()))));
        for query in [None, Some(other), Some(Query::LogicalPlan(vec![1])), Some(Query::PhysicalPlan(vec![255]))] {
            let status = check(&request(query)).unwrap_err();
            assert!(status.message().contains("and no other plans"), "{status}");
        }
    }
}
