//! The threads that requests run on.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::OwnedSemaphorePermit,
};

use crate::{error::ApiError, limits::concurrency::ConcurrencyLimiter};

/// Bytes of a thread's stack: only the used part takes memory.
const STACK_BYTES: usize = 256 << 20;

pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A runtime that is shut down without waiting for its tasks.
#[derive(Debug)]
pub(super) struct DetachedRuntime {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl DetachedRuntime {
    /// `blocking_threads` are the most that run blocking calls, in addition to the `threads` for tasks.
    pub(super) fn start(name: &str, threads: usize, blocking_threads: usize) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().worker_threads(threads).thread_name(name).thread_stack_size(STACK_BYTES);
        builder.max_blocking_threads(blocking_threads);
        let runtime = builder.build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for DetachedRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runtimes that one request at a time has for itself, each started when it is first needed.
#[derive(Debug)]
pub(super) struct RuntimePool {
    name: &'static str,
    blocking_threads: usize,
    pub(super) limiter: ConcurrencyLimiter,
    idle: Arc<Mutex<Vec<DetachedRuntime>>>,
    /// Runtimes that still compute for requests that have ended.
    pub(super) stuck: Arc<AtomicUsize>,
}

impl RuntimePool {
    pub(super) fn new(name: &'static str, size: usize, blocking_threads: usize, queue_timeout: Duration) -> Self {
        let limiter = ConcurrencyLimiter::new(size, queue_timeout);
        Self { name, blocking_threads, limiter, idle: Arc::default(), stuck: Arc::default() }
    }

    pub(super) fn are_all_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed) >= self.limiter.max_running()
    }

    /// A runtime for one request, when one is free.
    pub(super) async fn lease(&self) -> Result<LeasedRuntime, ApiError> {
        let permit = self.limiter.acquire().await?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // At least two threads: while one computes, the other reads.
        let threads = (cores() / 2).max(2);
        let runtime = match idle {
            Some(runtime) => runtime,
            None => DetachedRuntime::start(self.name, threads, self.blocking_threads).map_err(|error| {
                tracing::error!(%error, "the threads for a request could not be started");
                ApiError::busy()
            })?,
        };
        let lease = Arc::new(Lease { ended: Mutex::default(), stuck: Arc::clone(&self.stuck) });
        Ok(LeasedRuntime { runtime: Some(runtime), idle: Arc::clone(&self.idle), lease, _permit: permit })
    }
}

/// A runtime with one request on it. It returns to its pool when the request's work has really ended.
pub(super) struct LeasedRuntime {
    runtime: Option<DetachedRuntime>,
    idle: Arc<Mutex<Vec<DetachedRuntime>>>,
    lease: Arc<Lease>,
    _permit: OwnedSemaphorePermit,
}

impl LeasedRuntime {
    pub(super) fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("the runtime is taken by drop only").handle()
    }

    /// To be dropped when the request ends, whether or not its work has ended.
    pub(super) fn request(&self) -> LeasingRequest {
        LeasingRequest(Arc::clone(&self.lease))
    }
}

impl Drop for LeasedRuntime {
    fn drop(&mut self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.runtime.take());
        self.lease.end_work();
    }
}

/// The request that a runtime is leased for.
pub(super) struct LeasingRequest(Arc<Lease>);

impl Drop for LeasingRequest {
    fn drop(&mut self) {
        self.0.end_request();
    }
}

/// The state of a lease. It is stuck from the end of its request until the end of its work.
#[derive(Debug)]
struct Lease {
    ended: Mutex<Ended>,
    stuck: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Ended {
    work: bool,
    request: bool,
}

impl Lease {
    fn end_work(&self) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.request {
            self.stuck.fetch_sub(1, Ordering::Relaxed);
        }
        ended.work = true;
    }

    fn end_request(&self) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if !ended.work {
            self.stuck.fetch_add(1, Ordering::Relaxed);
        }
        ended.request = true;
    }
}
