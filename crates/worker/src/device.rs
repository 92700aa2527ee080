//! One device: its thread, its queue, and what happens when it fails.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use polylance_backend::{BackendError, Result};
use polylance_encoder::PackedBatch;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::PoolError;

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

/// A batch on its way.
pub(crate) struct Job {
    pub(crate) inputs: Vec<Vec<u32>>,
    pub(crate) reply: oneshot::Sender<Result<Vec<f32>>>,
    /// The batch's share of the pool's bound, given back when the job is dropped.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// A device's thread and queue. The queue is bounded by the permits that jobs carry.
pub(crate) struct Device {
    name: String,
    queue: Option<mpsc::Sender<Job>>,
    /// Ids queued and in work.
    load: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Device {
    /// Starts the thread.
    pub(crate) fn start(mut worker: impl DeviceWorker) -> std::result::Result<Self, PoolError> {
        let name = worker.name().to_owned();
        let (queue, jobs) = mpsc::channel::<Job>();
        let load = Arc::new(AtomicUsize::new(0));
        let done = Arc::clone(&load);
        let thread = thread::Builder::new().name(format!("device {name}")).spawn(move || {
            for job in jobs {
                let ids = job.inputs.iter().map(Vec::len).sum();
                // A caller that is gone needs no answer.
                if !job.reply.is_closed() {
                    let answer = guarded(&mut worker, &job.inputs);
                    drop(job.reply.send(answer));
                }
                done.fetch_sub(ids, Ordering::Relaxed);
            }
        });
        Ok(Self { name, queue: Some(queue), load, thread: Some(thread.map_err(PoolError::Thread)?) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Ids queued and in work.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Queues a job.
    pub(crate) fn send(&self, job: Job) -> Result<()> {
        let ids: usize = job.inputs.iter().map(Vec::len).sum();
        self.load.fetch_add(ids, Ordering::Relaxed);
        let queue = self.queue.as_ref().ok_or(BackendError::Closed)?;
        queue.send(job).map_err(|_| BackendError::Closed)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // The thread's own panics were caught; there is nothing to say about them here.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name).field("load", &self.load()).finish_non_exhaustive()
    }
}

/// Computes a batch; a panic of the device's library is an error like any other.
fn guarded(worker: &mut impl DeviceWorker, inputs: &[Vec<u32>]) -> Result<Vec<f32>> {
    catch_unwind(AssertUnwindSafe(|| embed(worker, inputs))).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(BackendError::Device {
            device: worker.name().to_owned(),
            message: message.unwrap_or_else(|| "it panicked".to_owned()),
        })
    })
}

/// Computes a batch, in halves when the device's memory is too small for the whole.
fn embed(worker: &mut impl DeviceWorker, inputs: &[Vec<u32>]) -> Result<Vec<f32>> {
    let batch = PackedBatch::new(inputs).map_err(|error| BackendError::Input(error.to_string()))?;
    match worker.embed(&batch) {
        Err(BackendError::OutOfMemory { device }) if inputs.len() > 1 => {
            tracing::warn!(device, sequences = inputs.len(), "out of memory: trying again with half the batch");
            let (first, second) = inputs.split_at(inputs.len() / 2);
            let mut values = embed(worker, first)?;
            values.extend(embed(worker, second)?);
            Ok(values)
        }
        result => result,
    }
}
