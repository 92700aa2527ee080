//! What the driver of a run needs of a task queue over machines.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::error::ClusterError;

/// A job of a queue: one attempt of a split.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobId(pub String);

/// The state of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobStatus {
    /// It waits or runs.
    Running,
    /// It ended; its result is in the outbox.
    Ended,
    /// It ended with an error of the queue or of the machine.
    Failed(String),
    /// The queue does not know it: it was started again.
    Lost,
}

/// A task queue over machines. Jobs may be lost, run twice or run after they were cancelled: what they do is harmless
/// then, and their results are found in the outbox.
#[async_trait]
pub trait Engine: fmt::Debug + Send + Sync {
    /// The number of tasks that all machines run at the same time.
    ///
    /// # Errors
    /// [`ClusterError::Scheduler`] if the queue cannot be reached.
    async fn slots(&self) -> Result<usize, ClusterError>;

    /// Queues a task, under a name for people.
    ///
    /// # Errors
    /// [`ClusterError::Scheduler`] if the queue cannot be reached.
    async fn submit(&self, name: &str, task: Arc<[u8]>) -> Result<JobId, ClusterError>;

    /// The state of a job.
    ///
    /// # Errors
    /// [`ClusterError::Scheduler`] if the queue cannot be reached.
    async fn status(&self, job: &JobId) -> Result<JobStatus, ClusterError>;

    /// Cancels a job that waits or runs.
    ///
    /// # Errors
    /// [`ClusterError::Scheduler`] if the queue cannot be reached.
    async fn cancel(&self, job: &JobId) -> Result<(), ClusterError>;
}
