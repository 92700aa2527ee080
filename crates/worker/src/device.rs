//! One device: its thread, and what happens when it fails.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
};

use polylance_backend::{BackendError, Result};

use crate::{
    PoolError,
    queues::{Ids, Queues},
};

/// What computes on a device. The pool gives it batches and knows nothing else of it.
pub trait DeviceWorker: Send + 'static {
    /// What a sequence is computed from.
    type Input: Ids + Clone + Send + 'static;
    /// What becomes of it.
    type Output: Send + 'static;

    /// The device's name, as configured.
    fn name(&self) -> &str;

    /// Computes a batch: an output an input, in their order.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] makes the pool try again with half the batch.
    fn run(&mut self, inputs: &[Self::Input]) -> Result<Vec<Self::Output>>;

    /// Makes good what a panic in [`DeviceWorker::run`] may have left behind.
    ///
    /// # Errors
    /// When the device cannot be used any more: others take its work.
    fn restart(&mut self) -> Result<()>;
}

/// Starts the device's thread. It ends when the queues are closed.
pub(crate) fn start<W: DeviceWorker>(
    worker: W,
    queues: Arc<Queues<W::Input, W::Output>>,
    number: usize,
) -> std::result::Result<JoinHandle<()>, PoolError> {
    let thread = thread::Builder::new().name(format!("device {}", worker.name()));
    let mut running = Running { worker, most: usize::MAX, fitted: 0, restarts: 0, known: None };
    let place = Place { queues, number };
    let serve = move || {
        while let Some(job) = place.queues.take(number) {
            // A caller that is gone needs no answer.
            if job.reply.is_closed() {
                continue;
            }
            let answer = match running.run(&job.inputs) {
                Ok(outputs) => Ok(outputs),
                Err(Stop::Job(error)) => Err(error),
                Err(Stop::Device(error)) => {
                    tracing::error!(%error, "the device is given up");
                    return place.queues.give_up(number, job, error);
                }
            };
            // Whoever has the answer finds the queues without the job.
            place.queues.done(number);
            drop(job.permit);
            drop(job.reply.send(answer));
        }
    };
    thread.spawn(serve).map_err(PoolError::Thread)
}

/// A device's place at the queues, left however its thread ends.
struct Place<I: Ids, O> {
    queues: Arc<Queues<I, O>>,
    number: usize,
}

impl<I: Ids, O> Drop for Place<I, O> {
    fn drop(&mut self) {
        self.queues.leave(self.number);
    }
}

/// Restarts in a row without a batch computed between: the device is broken, not its inputs.
const RESTARTS: usize = 3;

/// A worker and what was learned of it.
struct Running<W: DeviceWorker> {
    worker: W,
    /// Ids that may fit into its memory at once.
    most: usize,
    /// Ids that once did fit.
    fitted: usize,
    /// Restarts since a batch was computed.
    restarts: usize,
    /// An input that was computed once: a device that no longer can is broken.
    known: Option<W::Input>,
}

/// Why there are no outputs.
enum Stop {
    /// The job is answered with an error, the device takes the next.
    Job(BackendError),
    /// The device can do no more.
    Device(BackendError),
}

/// What came of one try.
enum Tried<O> {
    Done(Vec<O>),
    Failed(BackendError),
    Panicked(String),
}

impl<W: DeviceWorker> Running<W> {
    /// Computes a batch: in halves when the device's memory is too small for the whole, twice when it panics.
    fn run(&mut self, inputs: &[W::Input]) -> std::result::Result<Vec<W::Output>, Stop> {
        let ids: usize = inputs.iter().map(Ids::ids).sum();
        if inputs.len() > 1 && ids > self.most {
            return self.halves(inputs);
        }
        let mut tried = self.once(inputs)?;
        if matches!(tried, Tried::Panicked(_)) {
            tried = self.once(inputs)?;
        }
        match tried {
            Tried::Done(outputs) => Ok(outputs),
            Tried::Failed(BackendError::OutOfMemory { device }) if inputs.len() > 1 => {
                tracing::warn!(device, ids, "out of memory: batches will have half as many ids");
                // Memory that others hold for a while must not make batches small for good.
                self.most = self.fitted.max(ids / 2);
                self.halves(inputs)
            }
            Tried::Failed(BackendError::OutOfMemory { device }) => {
                let message = format!("does not fit into the memory of {device}: {ids} ids");
                Err(Stop::Job(BackendError::Input(message)))
            }
            Tried::Failed(error) => Err(Stop::Job(error)),
            Tried::Panicked(message) => {
                self.prove(inputs)?;
                let message = format!("device {} panicked: {message}", self.worker.name());
                Err(Stop::Job(BackendError::Input(message)))
            }
        }
    }

    fn halves(&mut self, inputs: &[W::Input]) -> std::result::Result<Vec<W::Output>, Stop> {
        let (first, second) = inputs.split_at(inputs.len() / 2);
        let mut outputs = self.run(first)?;
        outputs.extend(self.run(second)?);
        Ok(outputs)
    }

    /// Asks whether the device still computes what it can: then it is the batch that brings it down.
    fn prove(&mut self, inputs: &[W::Input]) -> std::result::Result<(), Stop> {
        if let Some(known) = self.known.clone() {
            let known = [known];
            while matches!(self.once(&known)?, Tried::Panicked(_)) {}
        } else if inputs.len() > 1 {
            let (first, second) = inputs.split_at(inputs.len() / 2);
            self.once(first)?;
            self.once(second)?;
        }
        Ok(())
    }

    /// Tries a batch. The worker is made good after a panic, unless that was in vain too often.
    fn once(&mut self, inputs: &[W::Input]) -> std::result::Result<Tried<W::Output>, Stop> {
        match catch_unwind(AssertUnwindSafe(|| self.worker.run(inputs))) {
            Ok(Ok(outputs)) => {
                self.restarts = 0;
                self.fitted = self.fitted.max(inputs.iter().map(Ids::ids).sum());
                if self.known.is_none() {
                    self.known = inputs.first().cloned();
                }
                Ok(Tried::Done(outputs))
            }
            Ok(Err(error)) => Ok(Tried::Failed(error)),
            Err(panic) => {
                let (device, message) = (self.worker.name().to_owned(), crate::error::panic_message(panic.as_ref()));
                if self.restarts == RESTARTS {
                    return Err(Stop::Device(BackendError::Device { device, message }));
                }
                tracing::warn!(device, message, "the device panicked and is restarted");
                self.restarts += 1;
                self.worker.restart().map_err(Stop::Device)?;
                Ok(Tried::Panicked(message))
            }
        }
    }
}
