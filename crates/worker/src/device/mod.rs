//! Devices: their workers, the threads that supervise them, and the queues in between.
//!
//! Start with [`worker`]: the trait that everything else here serves. [`devices`] is the entry for callers.

mod batch_slice;
mod batcher;
mod devices;
mod queues;
mod stalled_inputs;
mod supervisor;
mod thread;
mod worker;
mod worker_thread;

pub(crate) use devices::Devices;
pub use worker::{DeviceWorker, TokenCount};
