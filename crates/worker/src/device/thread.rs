//! One device: what computes on it, and the thread that sees to it.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use polylance_backend::Result;

use crate::{
    PoolError,
    queues::{Ids, Queues},
    refused::Refused,
    supervisor::{Stop, Supervisor},
};

/// What computes on a device. The pool gives it batches and knows nothing else of it.
pub trait DeviceWorker: Send + Sync + Sized + 'static {
    /// What a sequence is computed from.
    type Input: Ids;
    /// What becomes of it.
    type Output: Send + 'static;

    /// The device's name, as configured. Workers of one name share a device.
    fn name(&self) -> &str;

    /// Computes a batch: an output an input, in their order.
    ///
    /// # Errors
    /// [`polylance_backend::BackendError::OutOfMemory`] makes the pool try again with half the batch,
    /// [`polylance_backend::BackendError::Device`] with another worker. Any other error is the batch's own.
    fn run(&self, inputs: &[Self::Input]) -> Result<Vec<Self::Output>>;

    /// A worker for a new thread, after [`DeviceWorker::run`] has panicked or returned an error of the device, or while
    /// it makes no progress: it has nothing in common with this one that such a batch may have left broken or locked.
    ///
    /// # Errors
    /// When the device cannot be used any more: others take its work.
    fn another(&self) -> Result<Self>;
}

/// What the devices of a pool share.
#[derive(Debug)]
pub(crate) struct Shared<I: Ids, O> {
    pub(crate) queues: Queues<I, O>,
    pub(crate) refused: Refused<I>,
}

/// Starts the device's threads: one computes, the other gives it work and takes its place when it fails. They end when
/// the queues are closed.
pub(crate) fn start<W: DeviceWorker>(
    worker: W,
    shared: Arc<Shared<W::Input, W::Output>>,
    number: usize,
    stall: Option<Duration>,
) -> std::result::Result<JoinHandle<()>, PoolError> {
    let thread = thread::Builder::new().name(format!("supervisor {}", worker.name()));
    let mut supervisor = Supervisor::start(worker, stall).map_err(PoolError::Thread)?;
    let place = Place { shared, number };
    let serve = move || {
        let Shared { queues, refused } = &*place.shared;
        while let Some(job) = queues.take(number) {
            // A caller that is gone needs no answer.
            if job.reply.is_closed() {
                continue;
            }
            let answer = match supervisor.answer(&job, refused) {
                Ok(outputs) => Ok(outputs),
                Err(Stop::Job(error)) => Err(error),
                Err(Stop::Device(error)) => {
                    tracing::error!(%error, "the device is given up");
                    return queues.give_up(number, job, error);
                }
            };
            // Whoever has the answer finds the queues without the job.
            queues.done(number);
            drop(job.permit);
            drop(job.reply.send(answer));
        }
        supervisor.end();
    };
    thread.spawn(serve).map_err(PoolError::Thread)
}

/// A device's place at the queues, left however its thread ends.
struct Place<I: Ids, O> {
    shared: Arc<Shared<I, O>>,
    number: usize,
}

impl<I: Ids, O> Drop for Place<I, O> {
    fn drop(&mut self) {
        self.shared.queues.leave(self.number);
    }
}
