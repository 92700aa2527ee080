//! One device: its thread, and what happens when it fails.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
};

use polylance_backend::{BackendError, Result};
use polylance_encoder::PackedBatch;

use crate::{PoolError, queues::Queues};

/// What computes on a device. The pool gives it batches and knows nothing else of it.
pub trait DeviceWorker: Send + 'static {
    /// The device's name, as configured.
    fn name(&self) -> &str;

    /// Vectors of a packed batch: `[sequences, dim]`.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] makes the pool try again with half the batch.
    fn embed(&mut self, batch: &PackedBatch) -> Result<Vec<f32>>;
}

/// Starts the device's thread. It ends when the queues are closed.
pub(crate) fn start(
    worker: impl DeviceWorker,
    queues: Arc<Queues>,
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
struct Place {
    queues: Arc<Queues>,
    number: usize,
}

impl Drop for Place {
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
    fn guarded(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<f32>> {
        catch_unwind(AssertUnwindSafe(|| self.embed(inputs))).unwrap_or_else(|panic| {
            let device = self.worker.name().to_owned();
            Err(BackendError::Device { device, message: crate::error::panic_message(panic.as_ref()) })
        })
    }

    /// Computes a batch, in halves when the device's memory is too small for the whole.
    fn embed(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<f32>> {
        let ids: usize = inputs.iter().map(Vec::len).sum();
        if inputs.len() > 1 && ids > self.most {
            return self.halves(inputs);
        }
        let batch = PackedBatch::new(inputs).map_err(|error| BackendError::Input(error.to_string()))?;
        match self.worker.embed(&batch) {
            Err(BackendError::OutOfMemory { device }) if inputs.len() > 1 => {
                tracing::warn!(device, ids, "out of memory: batches will have half as many ids");
                self.most = ids / 2;
                self.halves(inputs)
            }
            result => result,
        }
    }

    fn halves(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<f32>> {
        let (first, second) = inputs.split_at(inputs.len() / 2);
        let mut values = self.embed(first)?;
        values.extend(self.embed(second)?);
        Ok(values)
    }
}
