//! The supervising thread of one worker: it takes jobs from the queues and replies to their callers.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    queues::Queues,
    stalled_inputs::StalledInputs,
    supervisor::{Fatal, Supervisor},
    worker::{DeviceWorker, TokenCount},
};
use crate::error::PoolError;

/// The state that all workers of a pool share.
#[derive(Debug)]
pub(super) struct Shared<I: TokenCount, O> {
    pub(super) queues: Queues<I, O>,
    pub(super) stalled_inputs: StalledInputs<I>,
}

/// Starts a worker's two threads: one computes; the other, the supervisor, gives it batches and replaces it when it
/// fails. They end when the queues are closed.
pub(super) fn start<W: DeviceWorker>(
    worker: W,
    shared: Arc<Shared<W::Input, W::Output>>,
    number: usize,
    stall: Option<Duration>,
) -> Result<JoinHandle<()>, PoolError> {
    let thread = thread::Builder::new().name(format!("supervisor {}", worker.name()));
    let mut supervisor = Supervisor::start(worker, stall).map_err(PoolError::Thread)?;
    let guard = QueueGuard { shared, number };
    let serve = move || {
        let Shared { queues, stalled_inputs } = &*guard.shared;
        while let Some(job) = queues.take(number) {
            // The caller is gone: nobody waits for the result.
            if job.reply.is_closed() {
                continue;
            }
            let result = match supervisor.run_job(&job, stalled_inputs) {
                Ok(outputs) => Ok(outputs),
                Err(Fatal::Job(error)) => Err(error),
                Err(Fatal::Device(error)) => {
                    tracing::error!(%error, "the device is given up");
                    return queues.give_up(number, job, error);
                }
            };
            // When the caller receives the result, the queues no longer count the job.
            queues.done(number);
            drop(job.permit);
            drop(job.reply.send(result));
        }
        supervisor.join();
    };
    thread.spawn(serve).map_err(PoolError::Thread)
}

/// Removes the worker from the queues however its thread ends.
struct QueueGuard<I: TokenCount, O> {
    shared: Arc<Shared<I, O>>,
    number: usize,
}

impl<I: TokenCount, O> Drop for QueueGuard<I, O> {
    fn drop(&mut self) {
        self.shared.queues.remove(self.number);
    }
}
