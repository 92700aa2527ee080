//! The process that embeds splits.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ballista_core::{
    config::TaskSchedulingPolicy,
    error::BallistaError,
    extension::{EndpointOverrideFn, SessionConfigExt},
    utils::{GrpcClientConfig, GrpcServerConfig, create_grpc_client_endpoint},
};
use ballista_executor::{
    ArrowFlightServerProvider,
    executor_process::{ExecutorProcessConfig, start_executor_process},
    shutdown::Shutdown,
};
use datafusion::prelude::SessionConfig;
use polylance_cluster::{ClusterError, SplitRunner};
use polylance_dataflow::ShutdownSignal;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    time::{interval, sleep, timeout},
};

use crate::{address::SchedulerAddress, client::KEEP_ALIVE, codec::SplitCodec, stage::SplitStages};

/// Interval of heartbeats. The scheduler takes an executor for lost after six.
const HEARTBEAT_SECONDS: u64 = 2;
/// Interval at which a draining executor looks for tasks in work: Ballista itself is not woken when one ends.
const DRAIN_INTERVAL: Duration = Duration::from_millis(250);
/// How long an executor waits for the scheduler when it starts. Ballista itself waits for ever.
const CONNECT_TIMEOUT: Duration = Duration::from_mins(1);
const MAX_MESSAGE_BYTES: u32 = 16 << 20;

/// Settings of an executor.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// The scheduler.
    pub scheduler: SchedulerAddress,
    /// The address to listen on.
    pub bind: IpAddr,
    /// The port to listen on, which the scheduler must reach.
    pub port: u16,
    /// The name or address under which the scheduler reaches this machine; the one that it sees if left out.
    pub advertise: Option<String>,
    /// Splits that are embedded at the same time.
    pub slots: usize,
}

/// Registers with the scheduler and embeds splits, until SIGTERM and the end of the splits in work, or until the signal
/// is forced.
///
/// # Errors
/// [`ClusterError::Listen`] if the port is taken, [`ClusterError::Scheduler`] if the scheduler is not reached,
/// [`ClusterError::Ended`] if it gives up this executor; [`ClusterError::Executor`] if this machine must not embed for a
/// run.
pub async fn run_executor(
    options: ExecutorOptions,
    runner: SplitRunner,
    shutdown: &ShutdownSignal,
) -> Result<(), ClusterError> {
    let failed = |error: &dyn std::error::Error| ClusterError::Scheduler {
        url: options.scheduler.to_string(),
        message: error.to_string(),
    };
    check_port(SocketAddr::new(options.bind, options.port)).await?;
    // Ballista deletes a folder of its own at once.
    let folder = tempfile::Builder::new().prefix("polylance-executor-").tempdir().map_err(|error| failed(&error))?;
    let work_dir = folder.path().to_string_lossy().into_owned();
    let registered = Arc::new(AtomicBool::new(false));
    let config = config(&options, work_dir, runner.clone(), Arc::clone(&registered));
    let mut process = pin!(start_executor_process(Arc::new(config)));
    let mut ticks = interval(DRAIN_INTERVAL);
    let mut refused = pin!(runner.refused());
    let mut unreached = pin!(sleep(CONNECT_TIMEOUT));
    loop {
        let is_registered = registered.load(Ordering::Relaxed);
        tokio::select! {
            ended = &mut process => {
                ended.map_err(|error: BallistaError| failed(&error))?;
                // Ballista may have received the signal of the system first.
                let requested = timeout(DRAIN_INTERVAL, shutdown.requested()).await;
                return requested.map_err(|_| ClusterError::Ended { url: options.scheduler.to_string() });
            }
            // Ballista does not listen to signals before.
            () = shutdown.requested(), if !is_registered => return Ok(()),
            () = &mut unreached, if !is_registered => {
                let (url, message) = (options.scheduler.to_string(), "it does not answer".to_owned());
                return Err(ClusterError::Scheduler { url, message });
            }
            message = &mut refused => {
                let host = options.advertise.clone().unwrap_or_else(host_name);
                return Err(ClusterError::Executor { host, message });
            }
            () = shutdown.forced() => return Ok(()),
            // Polls the process again.
            _ = ticks.tick() => {}
        }
    }
}

/// Fails if another process listens on a port of this machine.
async fn check_port(address: SocketAddr) -> Result<(), ClusterError> {
    let bound = TcpListener::bind(address).await;
    bound.map(drop).map_err(|error| ClusterError::Listen { address, message: error.to_string() })
}

fn config(
    options: &ExecutorOptions,
    work_dir: String,
    runner: SplitRunner,
    registered: Arc<AtomicBool>,
) -> ExecutorProcessConfig {
    let runner = Arc::new(runner);
    let session = move || -> SessionConfig { SessionConfig::new_with_ballista().with_extension(Arc::clone(&runner)) };
    ExecutorProcessConfig {
        // A port follows.
        bind_host: match options.bind {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        },
        external_host: options.advertise.clone(),
        port: 0,
        grpc_port: options.port,
        scheduler_host: options.scheduler.host().to_owned(),
        scheduler_port: options.scheduler.port(),
        // With any number it tries again; the number is not used.
        scheduler_connect_timeout_seconds: 1,
        concurrent_tasks: options.slots,
        // A pull executor cannot be told that a task is cancelled.
        task_scheduling_policy: TaskSchedulingPolicy::PushStaged,
        work_dir: Some(work_dir),
        grpc_max_decoding_message_size: MAX_MESSAGE_BYTES,
        grpc_max_encoding_message_size: MAX_MESSAGE_BYTES,
        executor_heartbeat_interval_seconds: HEARTBEAT_SECONDS,
        override_execution_engine: Some(Arc::new(SplitStages::default())),
        override_config_producer: Some(Arc::new(session)),
        override_physical_codec: Some(Arc::new(SplitCodec::default())),
        override_arrow_flight_service: Some(no_flight(registered)),
        override_create_grpc_client_endpoint: Some(scheduler_endpoint(options.scheduler.clone())),
        ..ExecutorProcessConfig::default()
    }
}

/// No results are fetched from an executor: nothing listens for that. Ballista starts this service once it has
/// registered.
fn no_flight(registered: Arc<AtomicBool>) -> Arc<ArrowFlightServerProvider> {
    Arc::new(move |_, _, mut shutdown: Shutdown, _: GrpcServerConfig| {
        registered.store(true, Ordering::Relaxed);
        Handle::current().spawn(async move {
            shutdown.recv().await;
            Ok(())
        })
    })
}

/// The scheduler names itself by an address of its own machine: the one that this executor was given is used instead.
fn scheduler_endpoint(scheduler: SchedulerAddress) -> EndpointOverrideFn {
    Arc::new(move |_| {
        let config =
            GrpcClientConfig { http2_keepalive_interval_seconds: KEEP_ALIVE.as_secs(), ..GrpcClientConfig::default() };
        let endpoint = create_grpc_client_endpoint(scheduler.to_string(), Some(&config))?;
        Ok(endpoint.keep_alive_timeout(KEEP_ALIVE))
    })
}

/// The name of this machine, for messages.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = if name.trim().is_empty() { std::env::var("HOSTNAME").unwrap_or_default() } else { name };
    let name = name.trim();
    if name.is_empty() { "this machine".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = check_port(address).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
        drop(taken);
        check_port(address).await.unwrap();
    }
}
