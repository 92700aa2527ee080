//! Jobs that ended, and the results of their attempts.

use std::time::Duration;

use datafusion::error::Result;
use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::{Drive, result_name};
use crate::{
    engine::JobStatus,
    error::ClusterError,
    order::{Attempt, Taken},
    result::{FailureKind, SplitFailure, SplitResult},
    task::TaskKind,
};

/// What each job adds to the interval at which jobs are asked for their state.
const POLL_INTERVAL_PER_JOB: Duration = Duration::from_millis(4);
/// Interval at which the results of late splits are looked for.
const OUTBOX_INTERVAL: Duration = Duration::from_secs(10);
/// Jobs whose state is asked for at the same time.
const POLLS_IN_FLIGHT: usize = 16;
/// The host of an attempt that left no result.
const UNKNOWN_HOST: &str = "an unknown machine";

impl Drive {
    /// Asks all jobs for their states, and takes the results of those that ended.
    pub(super) async fn poll(&mut self) -> Result<()> {
        let jobs = self.jobs.all();
        if self.polled.elapsed() < POLL_INTERVAL_PER_JOB * jobs.len() as u32 {
            return Ok(());
        }
        self.polled = Instant::now();
        let engine = &self.spec.engine;
        let status = |(attempt, job)| async move { (attempt, engine.status(&job).await) };
        let states = stream::iter(jobs).map(status).buffer_unordered(POLLS_IN_FLIGHT);
        let states: Vec<_> = states.collect().await;
        for (attempt, state) in states {
            match state {
                Ok(JobStatus::Running) => {}
                Ok(ended) => self.take_ended(attempt, ended).await?,
                Err(error) => self.cluster.failed(error),
            }
        }
        if self.outbox_polled.elapsed() >= OUTBOX_INTERVAL {
            self.outbox_polled = Instant::now();
            for attempt in self.order.late(self.now()) {
                // The message of its end may have been lost: the queue takes it for running.
                if self.take_written(attempt).await? {
                    self.jobs.cancel(&[attempt]).await;
                }
            }
        }
        Ok(())
    }

    async fn take_ended(&mut self, attempt: Attempt, state: JobStatus) -> Result<()> {
        self.jobs.remove(attempt);
        if self.take_written(attempt).await? {
            return Ok(());
        }
        let message = match state {
            JobStatus::Failed(message) => message,
            JobStatus::Lost => {
                self.order.lost(attempt);
                // An error of another attempt says more.
                let lost = || unknown(attempt, "it was lost too often".to_owned());
                self.errors.entry(attempt.split).or_insert_with(lost);
                return Ok(());
            }
            JobStatus::Ended | JobStatus::Running => "it left no result".to_owned(),
        };
        self.failed(attempt, FailureKind::Transient, unknown(attempt, message));
        Ok(())
    }

    /// Takes the result of an attempt, if there is one in the outbox.
    async fn take_written(&mut self, attempt: Attempt) -> Result<bool> {
        let name = result_name(attempt);
        let Some(bytes) = self.outbox.read(&name).await? else { return Ok(false) };
        let mut result = match SplitResult::decode(&bytes) {
            Ok(result) => result,
            Err(error) => {
                self.failed(attempt, FailureKind::Transient, unknown(attempt, error.to_string()));
                return Ok(true);
            }
        };
        if let Some(SplitFailure { kind, message, hint }) = result.summary.failure.take() {
            let host = result.summary.host;
            let error = match kind {
                FailureKind::Executor => ClusterError::Executor { host, message },
                _ => ClusterError::Split { split: attempt.split, host, message, hint },
            };
            self.failed(attempt, kind, error);
            return Ok(true);
        }
        let Taken { accepted, has_ids, cancelled } = self.order.done(attempt, self.now());
        self.jobs.cancel(&cancelled).await;
        if !accepted {
            return Ok(true);
        }
        self.errors.remove(&attempt.split);
        if has_ids {
            self.ids.insert(attempt.split, name.clone());
        }
        if attempt.kind == TaskKind::Rows {
            self.rows.insert(attempt.split, name.clone());
        }
        self.results.insert(name, result);
        Ok(true)
    }

    /// Records the error of an attempt: the run fails with it if no other attempt of the split succeeds.
    fn failed(&mut self, attempt: Attempt, kind: FailureKind, error: ClusterError) {
        let is_over = match kind {
            FailureKind::Transient => self.order.failed(attempt, true),
            FailureKind::Permanent => self.order.failed(attempt, false),
            // Another executor may have the right model.
            FailureKind::Executor => self.order.lost(attempt),
        };
        tracing::warn!(split = attempt.split, attempt = attempt.number, is_over, %error, "attempt failed");
        // A permanent error says why nothing was tried after it.
        if kind == FailureKind::Permanent || !self.order.has_permanent_error(attempt.split) {
            self.errors.insert(attempt.split, error);
        }
    }

    /// Gives up attempts that take too long.
    pub(super) async fn take_overdue(&mut self) -> Result<()> {
        for attempt in self.order.overdue(self.now()) {
            let is_done = self.take_written(attempt).await?;
            self.jobs.cancel(&[attempt]).await;
            if !is_done {
                self.failed(attempt, FailureKind::Transient, unknown(attempt, "it took too long".to_owned()));
            }
        }
        Ok(())
    }
}

/// The error of an attempt that left no result.
fn unknown(attempt: Attempt, message: String) -> ClusterError {
    ClusterError::Split { split: attempt.split, host: UNKNOWN_HOST.to_owned(), message, hint: None }
}
