//! The queue of a run: jobs at a scheduler.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ballista_core::{
    config::BALLISTA_JOB_NAME,
    serde::protobuf::{
        CancelJobParams, ExecuteQueryParams, GetJobStatusParams, KeyValuePair, RemoveSessionParams,
        execute_query_params::Query, execute_query_result, job_status::Status as State,
        scheduler_grpc_client::SchedulerGrpcClient,
    },
};
use datafusion_proto::{physical_plan::AsExecutionPlan, protobuf::PhysicalPlanNode};
use polylance_cluster::{ClusterError, Engine, JobId, JobStatus};
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::{
    address::SchedulerAddress,
    codec::SplitCodec,
    split_exec::SplitExec,
    status::{ClusterStatus, PATH},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval of pings on a connection, and how long the answer may take: a connection whose other end is gone is found.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long a job may be unknown to the scheduler after it was submitted.
const QUEUE_TIME: Duration = Duration::from_secs(10);

/// A cluster, by the address of its scheduler. It is connected to at the first request.
#[derive(Debug)]
pub struct BallistaEngine {
    address: SchedulerAddress,
    client: SchedulerGrpcClient<Channel>,
    session: String,
    jobs: Mutex<HashMap<JobId, Submitted>>,
}

/// A job that is in flight.
#[derive(Debug, Clone, Copy)]
struct Submitted {
    since: Instant,
    /// Whether the scheduler has planned it.
    is_planned: bool,
}

impl BallistaEngine {
    /// The cluster of this scheduler.
    ///
    /// # Errors
    /// [`ClusterError::Address`].
    pub fn new(address: SchedulerAddress) -> Result<Self, ClusterError> {
        let endpoint = Endpoint::from_shared(address.to_string())
            .map_err(|_| ClusterError::Address { found: address.to_string() })?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let client = SchedulerGrpcClient::new(endpoint.connect_lazy());
        Ok(Self { address, client, session: Uuid::new_v4().to_string(), jobs: Mutex::default() })
    }

    fn failed(&self, message: impl ToString) -> ClusterError {
        ClusterError::Scheduler { url: self.address.to_string(), message: message.to_string() }
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Submitted>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of the cluster of a scheduler.
///
/// # Errors
/// [`ClusterError::Scheduler`] if it is not reached.
pub async fn cluster_status(address: &SchedulerAddress) -> Result<ClusterStatus, ClusterError> {
    let failed = |message: String| ClusterError::Scheduler { url: address.to_string(), message };
    let url = format!("{address}{PATH}");
    let request = tokio::task::spawn_blocking(move || {
        // The scheduler is in the same network: proxies are for addresses outside.
        let config = ureq::Agent::config_builder().timeout_global(Some(CONNECT_TIMEOUT)).proxy(None).build();
        ureq::Agent::from(config).get(&url).call()?.body_mut().read_to_string()
    });
    let body = request.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&body).map_err(|error| failed(format!("it is no scheduler of polylance: {error}")))
}

#[async_trait]
impl Engine for BallistaEngine {
    async fn slots(&self) -> Result<usize, ClusterError> {
        Ok(cluster_status(&self.address).await?.slots)
    }

    async fn submit(&self, name: &str, task: Arc<[u8]>) -> Result<JobId, ClusterError> {
        let plan = PhysicalPlanNode::try_from_physical_plan(Arc::new(SplitExec::new(task)), &SplitCodec::default());
        let mut bytes = Vec::new();
        plan.and_then(|plan| plan.try_encode(&mut bytes)).map_err(|error| self.failed(error))?;
        let request = ExecuteQueryParams {
            session_id: self.session.clone(),
            settings: vec![KeyValuePair { key: BALLISTA_JOB_NAME.to_owned(), value: Some(name.to_owned()) }],
            operation_id: Uuid::new_v4().to_string(),
            query: Some(Query::PhysicalPlan(bytes)),
        };
        let response =
            self.client.clone().execute_query(request).await.map_err(|status| self.failed(status.message()))?;
        let job = match response.into_inner().result {
            Some(execute_query_result::Result::Success(success)) => JobId(success.job_id),
            Some(execute_query_result::Result::Failure(failure)) => return Err(self.failed(format!("{failure:?}"))),
            None => return Err(self.failed("it returned no job")),
        };
        self.jobs().insert(job.clone(), Submitted { since: Instant::now(), is_planned: false });
        Ok(job)
    }

    async fn status(&self, job: &JobId) -> Result<JobStatus, ClusterError> {
        let request = GetJobStatusParams { job_id: job.0.clone() };
        let response =
            self.client.clone().get_job_status(request).await.map_err(|status| self.failed(status.message()))?;
        let state = response.into_inner().status.and_then(|status| status.status);
        let status = match state {
            Some(State::Queued(_)) => JobStatus::Running,
            Some(State::Running(_)) => {
                if let Some(job) = self.jobs().get_mut(job) {
                    job.is_planned = true;
                }
                JobStatus::Running
            }
            Some(State::Successful(_)) => JobStatus::Ended,
            Some(State::Failed(failed)) => JobStatus::Failed(failed.error),
            // It is queued after the scheduler has returned its id.
            None if self.jobs().get(job).is_some_and(|job| job.since.elapsed() < QUEUE_TIME) => JobStatus::Running,
            None => JobStatus::Lost,
        };
        if status != JobStatus::Running {
            self.jobs().remove(job);
        }
        Ok(status)
    }

    async fn cancel(&self, job: &JobId) -> Result<(), ClusterError> {
        // Ballista may lose a slot for ever if a job is cancelled while its task is launched. One that was not planned
        // yet is left to run: its result is not taken.
        if self.jobs().remove(job).is_some_and(|job| !job.is_planned) {
            return Ok(());
        }
        let request = CancelJobParams { job_id: job.0.clone() };
        let cancelled = self.client.clone().cancel_job(request).await;
        cancelled.map(drop).map_err(|status| self.failed(status.message()))
    }
}

impl Drop for BallistaEngine {
    fn drop(&mut self) {
        let (mut client, session_id) = (self.client.clone(), self.session.clone());
        if let Ok(runtime) = Handle::try_current() {
            // A session that stays costs the scheduler some memory.
            runtime.spawn(async move { client.remove_session(RemoveSessionParams { session_id }).await.map(drop) });
        }
    }
}
