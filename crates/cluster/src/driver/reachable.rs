//! Whether a cluster can be used.

use std::time::Duration;

use tokio::time::Instant;

use super::POLL_INTERVAL;
use crate::{cluster_exec::ClusterSpec, error::ClusterError};

/// Interval at which the number of slots is asked for.
const SLOTS_INTERVAL: Duration = Duration::from_secs(2);

/// Whether the cluster can be used.
pub(super) struct Reachable {
    /// When it was last.
    last: Instant,
    /// When the slots were last asked for.
    asked: Option<Instant>,
    /// Since when it has taken no task.
    refused_since: Option<Instant>,
    error: Option<ClusterError>,
}

impl Reachable {
    pub(super) fn new() -> Self {
        Self { last: Instant::now(), asked: None, refused_since: None, error: None }
    }

    /// The number of slots when the first executor is there.
    pub(super) async fn first_slots(&mut self, spec: &ClusterSpec) -> Result<usize, ClusterError> {
        loop {
            if let Some(slots) = self.slots(spec).await.filter(|slots| *slots > 0) {
                return Ok(slots);
            }
            self.expect_alive(spec)?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The number of slots, if it is time to ask for it and there is an answer.
    pub(super) async fn slots(&mut self, spec: &ClusterSpec) -> Option<usize> {
        if self.asked.is_some_and(|asked| asked.elapsed() < SLOTS_INTERVAL) {
            return None;
        }
        self.asked = Some(Instant::now());
        match spec.engine.slots().await {
            Ok(slots) => {
                if self.refused_since.is_none() {
                    self.error = None;
                }
                if slots > 0 {
                    self.last = Instant::now();
                }
                Some(slots)
            }
            Err(error) => {
                self.failed(error);
                None
            }
        }
    }

    /// The cluster took the tasks that it was sent.
    pub(super) fn accepted(&mut self) {
        self.refused_since = None;
    }

    /// The cluster did not take a task.
    pub(super) fn refused(&mut self, error: ClusterError) {
        self.refused_since.get_or_insert_with(Instant::now);
        self.failed(error);
    }

    pub(super) fn failed(&mut self, error: ClusterError) {
        if self.error.is_none() {
            tracing::warn!(%error, "the cluster is not reached");
        }
        self.error = Some(error);
    }

    /// This machine did something else for this long: nothing was asked of the cluster.
    pub(super) fn exclude(&mut self, time: Duration) {
        self.last += time;
        if let Some(since) = &mut self.refused_since {
            *since += time;
        }
    }

    /// Fails when the cluster could not be used for too long.
    pub(super) fn expect_alive(&mut self, spec: &ClusterSpec) -> Result<(), ClusterError> {
        let refused = self.refused_since.map(|since| since.elapsed()).unwrap_or_default();
        let waited = self.last.elapsed().max(refused);
        if waited <= spec.settings.patience {
            return Ok(());
        }
        Err(self.error.take().unwrap_or(ClusterError::NoExecutors { waited }))
    }
}
