//! A task queue in this process, without network: for tests of runs on a cluster.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use tokio::sync::Semaphore;

use crate::{
    engine::{Engine, JobId, JobStatus},
    error::ClusterError,
    runner::SplitRunner,
};

/// What happens to a job, by its number among all jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It runs.
    Runs,
    /// It is lost before it begins.
    Lost,
    /// It runs, and no message of its end arrives.
    Unheard,
}

type Job = (Fate, SpawnedTask<()>);

/// A queue whose jobs run in this process.
pub struct InProcessEngine {
    runner: SplitRunner,
    slots: usize,
    running: Arc<Semaphore>,
    fate: fn(usize) -> Fate,
    submitted: AtomicUsize,
    jobs: Mutex<HashMap<JobId, Job>>,
    ended: Arc<Mutex<HashMap<JobId, JobStatus>>>,
}

impl InProcessEngine {
    /// A queue of which this many jobs run at the same time.
    pub fn new(runner: SplitRunner, slots: usize) -> Self {
        Self {
            runner,
            slots,
            running: Arc::new(Semaphore::new(slots)),
            fate: |_| Fate::Runs,
            submitted: AtomicUsize::new(0),
            jobs: Mutex::default(),
            ended: Arc::default(),
        }
    }

    /// A queue that treats jobs by their numbers.
    #[must_use]
    pub fn with_fate(self, fate: fn(usize) -> Fate) -> Self {
        Self { fate, ..self }
    }

    /// Number of jobs so far.
    pub fn submitted(&self) -> usize {
        self.submitted.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for InProcessEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessEngine").field("slots", &self.slots).finish_non_exhaustive()
    }
}

#[async_trait]
impl Engine for InProcessEngine {
    async fn slots(&self) -> Result<usize, ClusterError> {
        Ok(self.slots)
    }

    async fn submit(&self, name: &str, task: Arc<[u8]>) -> Result<JobId, ClusterError> {
        let number = self.submitted.fetch_add(1, Ordering::Relaxed);
        let (job, fate) = (JobId(format!("{name} #{number}")), (self.fate)(number));
        let (runner, running, ended) = (self.runner.clone(), Arc::clone(&self.running), Arc::clone(&self.ended));
        let id = job.clone();
        let task = SpawnedTask::spawn(async move {
            if fate == Fate::Lost {
                return;
            }
            let _slot = running.acquire().await;
            let status = match runner.run(task).await {
                Ok(()) => JobStatus::Ended,
                Err(error) => JobStatus::Failed(error.to_string()),
            };
            ended.lock().unwrap_or_else(PoisonError::into_inner).insert(id, status);
        });
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(job.clone(), (fate, task));
        Ok(job)
    }

    async fn status(&self, job: &JobId) -> Result<JobStatus, ClusterError> {
        let fate = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).get(job).map(|(fate, _)| *fate);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).get(job).cloned();
        Ok(match fate {
            None | Some(Fate::Lost) => JobStatus::Lost,
            Some(Fate::Unheard) => JobStatus::Running,
            Some(Fate::Runs) => ended.unwrap_or(JobStatus::Running),
        })
    }

    async fn cancel(&self, job: &JobId) -> Result<(), ClusterError> {
        // Dropping the task ends it.
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(job));
        Ok(())
    }
}
