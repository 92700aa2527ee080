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
    type Input: Ids + Send + 'static;
    /// What becomes of it.
    type Output: Send + 'static;

    /// The device's name, as configured.
    fn name(&self) -> &str;

    /// Computes a batch: an output an input, in their order.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] makes the pool try again with half the batch.
    fn run(&mut self, inputs: &[Self::Input]) -> Result<Vec<Self::Output>>;
}

/// Starts the device's thread. It ends when the queues are closed.
pub(crate) fn start<W: DeviceWorker>(
    worker: W,
    queues: Arc<Queues<W::Input, W::Output>>,
    number: usize,
) -> std::result::Result<JoinHandle<()>, PoolError> {
    let thread = thread::Builder::new().name(format!("device {}", worker.name()));
    let mut running = Running { worker, most: usize::MAX };
    let place = Place { queues, number };
    let serve = move || {
        while let Some(job) = place.queues.take(number) {
            // A caller that is gone needs no answer.
            if !job.reply.is_closed() {
                let answer = running.guarded(&job.inputs);
                drop(job.permit);
                drop(job.reply.send(answer));
            }
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

/// A worker and what was learned of its memory.
struct Running<W> {
    worker: W,
    /// Ids that may fit into its memory at once.
    most: usize,
}

impl<W: DeviceWorker> Running<W> {
    /// Computes a batch; a panic of the device's library is an error like any other.
    fn guarded(&mut self, inputs: &[W::Input]) -> Result<Vec<W::Output>> {
        catch_unwind(AssertUnwindSafe(|| self.run(inputs))).unwrap_or_else(|panic| {
            let device = self.worker.name().to_owned();
            Err(BackendError::Device { device, message: crate::error::panic_message(panic.as_ref()) })
        })
    }

    /// Computes a batch, in halves when the device's memory is too small for the whole.
    fn run(&mut self, inputs: &[W::Input]) -> Result<Vec<W::Output>> {
        let ids: usize = inputs.iter().map(Ids::ids).sum();
        if inputs.len() > 1 && ids > self.most {
            return self.halves(inputs);
        }
        match self.worker.run(inputs) {
            Err(BackendError::OutOfMemory { device }) if inputs.len() > 1 => {
                tracing::warn!(device, ids, "out of memory: batches will have half as many ids");
                self.most = ids / 2;
                self.halves(inputs)
            }
            result => result,
        }
    }

    fn halves(&mut self, inputs: &[W::Input]) -> Result<Vec<W::Output>> {
        let (first, second) = inputs.split_at(inputs.len() / 2);
        let mut outputs = self.run(first)?;
        outputs.extend(self.run(second)?);
        Ok(outputs)
    }
}
