//! The memory of responses that are complete and that their clients have not yet received.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;

/// Bytes of one semaphore permit: semaphores count up to 2^29.
const BYTES_PER_PERMIT: usize = 1024;

/// A budget of bytes for all responses.
#[derive(Debug, Clone)]
pub(crate) struct ResponseMemory {
    permits: Arc<Semaphore>,
    max_permits: u32,
}

impl ResponseMemory {
    pub(crate) fn new(max_bytes: usize) -> Self {
        let max_permits = u32::try_from(max_bytes.div_ceil(BYTES_PER_PERMIT)).unwrap_or(u32::MAX).clamp(1, 1 << 28);
        Self { permits: Arc::new(Semaphore::new(max_permits as usize)), max_permits }
    }

    /// Reserves the bytes of a response until the permit is dropped. A response that is larger than the whole budget
    /// reserves all of it.
    pub(crate) fn try_reserve(&self, bytes: u64) -> Result<OwnedSemaphorePermit, ApiError> {
        let permits = u32::try_from(bytes.div_ceil(BYTES_PER_PERMIT as u64)).unwrap_or(u32::MAX);
        let permits = permits.min(self.max_permits);
        Arc::clone(&self.permits).try_acquire_many_owned(permits).map_err(|_| ApiError::busy())
    }
}
