//! The interface between a pool and its devices: workers that compute batches, and inputs of a known cost.

use std::hash::Hash;

use polylance_backend::Result;

/// An input of a device. Its cost is its number of tokens.
pub trait TokenCount: Clone + Eq + Hash + Send + Sync + 'static {
    /// The ids of its tokens.
    fn input_ids(&self) -> &[u32];

    /// Its number of tokens.
    fn token_count(&self) -> usize {
        self.input_ids().len()
    }
}

impl TokenCount for Vec<u32> {
    fn input_ids(&self) -> &[u32] {
        self
    }
}

/// Computes batches on one device. The pool knows nothing else about the device.
pub trait DeviceWorker: Send + Sync + Sized + 'static {
    /// One input of a batch.
    type Input: TokenCount;
    /// The result for one input.
    type Output: Send + 'static;

    /// The device's name, as configured. Workers with the same name share a device.
    fn name(&self) -> &str;

    /// Computes a batch: one output per input, in the same order.
    ///
    /// # Errors
    /// After [`polylance_backend::BackendError::OutOfMemory`] the pool retries with half the batch, after
    /// [`polylance_backend::BackendError::Device`] with another worker. Any other error is the batch's own.
    fn run(&self, inputs: &[Self::Input]) -> Result<Vec<Self::Output>>;

    /// A worker for a new thread, called after [`DeviceWorker::run`] has panicked or returned a device error, or while
    /// it makes no progress. The new worker shares nothing with this one that such a batch may have left broken or
    /// locked.
    ///
    /// # Errors
    /// When the device cannot be used any more: other devices take its work.
    fn respawn(&self) -> Result<Self>;
}
