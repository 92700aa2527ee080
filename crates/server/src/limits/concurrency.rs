//! How many requests run at once, and a short queue in front of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::error::ApiError;

/// Requests that may wait for each one that runs.
const MAX_WAITING_PER_RUNNING: usize = 4;

/// Gives out a fixed number of permits. Those who wait for one are refused when they are too many or wait too long.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimiter {
    permits: Arc<Semaphore>,
    max_running: usize,
    waiting: AtomicUsize,
    queue_timeout: Duration,
}

impl ConcurrencyLimiter {
    pub(crate) fn new(max_running: usize, queue_timeout: Duration) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_running)),
            max_running,
            waiting: AtomicUsize::new(0),
            queue_timeout,
        }
    }

    pub(crate) async fn acquire(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let waiting = Waiting::new(&self.waiting);
        if waiting.before >= MAX_WAITING_PER_RUNNING * self.max_running {
            return Err(ApiError::busy());
        }
        match timeout(self.queue_timeout, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(ApiError::busy()),
        }
    }

    pub(crate) fn max_running(&self) -> usize {
        self.max_running
    }

    /// Permits that are given out.
    pub(crate) fn running(&self) -> usize {
        self.max_running - self.permits.available_permits()
    }
}

/// A request in the queue, counted until it is dropped.
struct Waiting<'c> {
    count: &'c AtomicUsize,
    before: usize,
}

impl<'c> Waiting<'c> {
    fn new(count: &'c AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
