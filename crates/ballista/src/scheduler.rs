//! The process that deals splits to executors.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{Json, Router, routing::get};
use ballista_core::{
    config::TaskSchedulingPolicy,
    serde::protobuf::{
        UpdateTaskStatusParams,
        scheduler_grpc_server::{SchedulerGrpc, SchedulerGrpcServer},
    },
};
use ballista_scheduler::{
    cluster::BallistaCluster,
    config::{SchedulerConfig, TaskDistributionPolicy},
    scheduler_process::create_scheduler,
    scheduler_server::SchedulerServer,
};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use polylance_cluster::ClusterError;
use polylance_dataflow::ShutdownSignal;
use tokio::{net::TcpListener, time::interval};
use tonic::{Request, service::RoutesBuilder};

use crate::{
    codec::SplitCodec,
    guard::SplitsOnly,
    status::{ClusterStatus, ExecutorStatus, PATH},
};

/// An executor that is silent for this long is lost.
const EXECUTOR_TIMEOUT_SECONDS: u64 = 12;
/// Interval at which lost executors are looked for.
const EXPIRY_INTERVAL_SECONDS: u64 = 1;
/// Interval at which waiting tasks are dealt. Ballista itself deals them when one arrives or ends, and neither happens
/// while all wait for executors that were silent for a while.
const DEAL_INTERVAL: Duration = Duration::from_secs(1);
/// How long an executor that gets SIGTERM may finish its splits. It decides itself how long it takes; after this time
/// the scheduler would forget that, and deal splits to it. One that is gone is silent.
const TERMINATION_GRACE_SECONDS: u64 = 24 * 60 * 60;
/// How long the state of a job is kept: each split is one.
const JOB_STATE_SECONDS: u64 = 60;
/// How long the file with the only row of a job is kept.
const JOB_DATA_SECONDS: u64 = 60;
const MAX_MESSAGE_BYTES: u32 = 16 << 20;

type Scheduler = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;

/// A scheduler that listens.
pub struct BoundScheduler {
    listener: TcpListener,
    scheduler: Scheduler,
}

impl std::fmt::Debug for BoundScheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundScheduler").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl BoundScheduler {
    /// Listens on an address for executors and runs. Whoever reaches it can let the executors read and write what they
    /// can: it belongs into a private network.
    ///
    /// # Errors
    /// [`ClusterError::Listen`] if the address is taken.
    pub async fn bind(address: SocketAddr) -> Result<Self, ClusterError> {
        let failed = |error: &dyn std::error::Error| ClusterError::Listen { address, message: error.to_string() };
        let listener = TcpListener::bind(address).await.map_err(|error| failed(&error))?;
        let address = listener.local_addr().map_err(|error| failed(&error))?;
        let config = Arc::new(config(address));
        let cluster = BallistaCluster::new_from_config(&config).await.map_err(|error| failed(&error))?;
        let scheduler = create_scheduler(cluster, config).await.map_err(|error| failed(&error))?;
        Ok(Self { listener, scheduler })
    }

    /// The address on which it listens.
    ///
    /// # Errors
    /// [`ClusterError::Scheduler`], which is a defect of the system.
    pub fn address(&self) -> Result<SocketAddr, ClusterError> {
        self.listener
            .local_addr()
            .map_err(|error| ClusterError::Scheduler { url: "http://".to_owned(), message: error.to_string() })
    }

    /// Serves until a shutdown is requested.
    ///
    /// # Errors
    /// [`ClusterError::Scheduler`] if the listener fails.
    pub async fn serve(self, shutdown: &ShutdownSignal) -> Result<(), ClusterError> {
        let url = format!("http://{}", self.address()?);
        let routes = routes(&self.scheduler).into_make_service_with_connect_info::<SocketAddr>();
        let served = async { axum::serve(self.listener, routes).await };
        tokio::select! {
            served = served => served.map_err(|error| ClusterError::Scheduler { url, message: error.to_string() }),
            never = deal_repeatedly(&self.scheduler) => match never {},
            () = shutdown.requested() => Ok(()),
        }
    }
}

/// Deals the tasks that wait, again and again.
async fn deal_repeatedly(scheduler: &Scheduler) -> Infallible {
    let mut ticks = interval(DEAL_INTERVAL);
    loop {
        ticks.tick().await;
        if splits(scheduler) > 0
            && let Some(executor_id) = responsive_executor(scheduler).await
        {
            // After each report, even of no task, tasks are dealt.
            let report = UpdateTaskStatusParams { executor_id, task_status: Vec::new() };
            if let Err(error) = SchedulerGrpc::update_task_status(scheduler, Request::new(report)).await {
                tracing::warn!(%error, "waiting splits are not dealt");
            }
        }
    }
}

/// Splits in work, or waiting for a slot.
fn splits(scheduler: &Scheduler) -> usize {
    scheduler.running_job_number() + scheduler.pending_job_number()
}

/// The id of an executor that is not silent.
async fn responsive_executor(scheduler: &Scheduler) -> Option<String> {
    let registered = scheduler.state.executor_manager.get_executors_state().await.unwrap_or_default();
    let timeout = Duration::from_secs(EXECUTOR_TIMEOUT_SECONDS);
    let mut responsive = registered
        .into_iter()
        .filter(|(_, heartbeat, _)| heartbeat.is_some_and(|heartbeat| silence(heartbeat) < timeout));
    responsive.next().map(|(executor, ..)| executor.id)
}

/// The time since a heartbeat, which is a time since 1970.
fn silence(heartbeat: Duration) -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(heartbeat)
}

fn config(address: SocketAddr) -> SchedulerConfig {
    SchedulerConfig {
        bind_host: address.ip().to_string(),
        bind_port: address.port(),
        scheduling_policy: TaskSchedulingPolicy::PushStaged,
        task_distribution: TaskDistributionPolicy::RoundRobin,
        executor_timeout_seconds: EXECUTOR_TIMEOUT_SECONDS,
        expire_dead_executor_interval_seconds: EXPIRY_INTERVAL_SECONDS,
        executor_termination_grace_period: TERMINATION_GRACE_SECONDS,
        finished_job_state_clean_up_interval_seconds: JOB_STATE_SECONDS,
        finished_job_data_clean_up_interval_seconds: JOB_DATA_SECONDS,
        grpc_server_max_decoding_message_size: MAX_MESSAGE_BYTES,
        grpc_server_max_encoding_message_size: MAX_MESSAGE_BYTES,
        // The run that submitted a split decides about further attempts.
        task_max_failures: 1,
        stage_max_failures: 1,
        override_physical_codec: Some(Arc::new(SplitCodec::default())),
        ..SchedulerConfig::default()
    }
}

fn routes(scheduler: &Scheduler) -> Router {
    let service = SchedulerGrpcServer::new(SplitsOnly::new(scheduler.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES as usize)
        .max_encoding_message_size(MAX_MESSAGE_BYTES as usize);
    let mut grpc = RoutesBuilder::default();
    grpc.add_service(service);
    let (status, metrics) = (scheduler.clone(), scheduler.clone());
    let http = Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route(PATH, get(move || async move { Json(cluster_status(&status).await) }))
        .route("/metrics", get(move || async move { cluster_status(&metrics).await.metrics() }));
    grpc.routes().into_axum_router().merge(http)
}

async fn cluster_status(scheduler: &Scheduler) -> ClusterStatus {
    // The state is in memory: it can always be read.
    let registered = scheduler.state.executor_manager.get_executors_state().await.unwrap_or_default();
    let executor = |(metadata, heartbeat, _): (_, Option<Duration>, _)| {
        let metadata: ballista_core::serde::scheduler::ExecutorMetadata = metadata;
        ExecutorStatus {
            host: metadata.host,
            port: metadata.grpc_port,
            slots: metadata.specification.task_slots as usize,
            seconds_silent: heartbeat.map_or(0, |heartbeat| silence(heartbeat).as_secs()),
        }
    };
    let registered: Vec<(_, _, Vec<ballista_core::serde::protobuf::ExecutorMetric>)> = registered;
    let mut executors: Vec<ExecutorStatus> = registered.into_iter().map(executor).collect();
    executors.sort();
    ClusterStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: executors.iter().map(|executor| executor.slots).sum(),
        splits: splits(scheduler),
        executors,
    }
}
