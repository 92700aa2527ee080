//! The jobs of a run that are in flight. They are cancelled when the run is dropped.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use futures::future::join_all;
use tokio::runtime::Handle;

use crate::{
    engine::{Engine, JobId},
    order::Attempt,
};

/// The jobs in flight, by their attempts.
#[derive(Debug)]
pub(super) struct Jobs {
    engine: Arc<dyn Engine>,
    jobs: HashMap<Attempt, JobId>,
}

impl Jobs {
    pub(super) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, jobs: HashMap::new() }
    }

    pub(super) fn insert(&mut self, attempt: Attempt, job: JobId) {
        self.jobs.insert(attempt, job);
    }

    pub(super) fn remove(&mut self, attempt: Attempt) {
        self.jobs.remove(&attempt);
    }

    pub(super) fn all(&self) -> Vec<(Attempt, JobId)> {
        self.jobs.iter().map(|(attempt, job)| (*attempt, job.clone())).collect()
    }

    /// Cancels the jobs of these attempts.
    pub(super) async fn cancel(&mut self, attempts: &[Attempt]) {
        let jobs = attempts.iter().filter_map(|attempt| self.jobs.remove(attempt)).collect();
        cancel(Arc::clone(&self.engine), jobs).await;
    }

    /// Cancels all jobs.
    pub(super) async fn cancel_all(&mut self) {
        let jobs = self.take_all();
        cancel(Arc::clone(&self.engine), jobs).await;
    }

    /// All jobs, those that wait first: no slot is given to one that is cancelled next.
    fn take_all(&mut self) -> Vec<JobId> {
        let mut jobs: Vec<_> = self.jobs.drain().collect();
        jobs.sort_unstable_by_key(|(attempt, _)| Reverse(*attempt));
        jobs.into_iter().map(|(_, job)| job).collect()
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        let jobs = self.take_all();
        if let (false, Ok(runtime)) = (jobs.is_empty(), Handle::try_current()) {
            runtime.spawn(cancel(Arc::clone(&self.engine), jobs));
        }
    }
}

/// A job that is not cancelled ends by itself: its result is not taken.
async fn cancel(engine: Arc<dyn Engine>, jobs: Vec<JobId>) {
    let cancel = |job: JobId| {
        let engine = Arc::clone(&engine);
        async move {
            if let Err(error) = engine.cancel(&job).await {
                tracing::debug!(%error, job = job.0, "a job is not cancelled");
            }
        }
    };
    join_all(jobs.into_iter().map(cancel)).await;
}
