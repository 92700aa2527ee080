//! Copies to the device on a stream of their own, while kernels compute.

use std::{fmt, sync::Arc};

use crate::{
    driver_api::Event,
    error::{CudaError, Result},
    gpu::{EventKind, Gpu},
    memory::{DeviceSlice, PinnedBuffer},
    pass::Pass,
};

/// A copy that [`Pass::copy_ahead`] queued, in this pass or an earlier one.
pub struct AheadCopy {
    gpu: Arc<Gpu>,
    /// Recorded behind the copy.
    event: Event,
}

impl Pass<'_> {
    /// Copies a whole host buffer to `to` while the kernels that are queued from now on compute. The copy runs after
    /// everything that this pass and earlier ones have queued, so memory that they read may be overwritten.
    ///
    /// What reads `to` must be queued after [`Pass::await_copy`], in this pass or a later one: until then its contents
    /// are arbitrary. The pass is over only when the copy is, whether or not it was awaited.
    ///
    /// # Errors
    ///
    /// [`CudaError::Misuse`] if the sizes differ, or one of the buffers is another device's; [`CudaError::Lost`].
    pub fn copy_ahead(&mut self, from: &Arc<PinnedBuffer>, to: DeviceSlice<'_>) -> Result<AheadCopy> {
        const OPERATION: &str = "copy ahead";
        let gpu = Arc::clone(self.gpu());
        gpu.enter()?;
        self.check_device(OPERATION, to)?;
        if !from.is_on(&gpu) {
            return Err(CudaError::misuse(OPERATION, "the host buffer was made for another device"));
        }
        let Some(host) = from.address(0, to.bytes()).filter(|_| from.bytes() == to.bytes()) else {
            let reason = format!("{} bytes do not fit {} bytes of device memory", from.bytes(), to.bytes());
            return Err(CudaError::misuse(OPERATION, reason));
        };
        let copy = AheadCopy { event: gpu.take_event(EventKind::Wait)?, gpu: Arc::clone(&gpu) };
        gpu.record(copy.event, gpu.stream())?;
        gpu.wait_in_stream(gpu.copy_stream(), copy.event)?;
        if to.bytes() > 0 {
            self.share(from);
            // SAFETY: the device memory is of this device and as long as the host memory, of which the pass owns a
            // share until the copy is over; nothing writes to shared memory.
            let status = unsafe { (gpu.driver().memcpy_to_device)(to.address(), host, to.bytes(), gpu.copy_stream()) };
            gpu.check("cuMemcpyHtoDAsync", status)?;
        }
        gpu.record(copy.event, gpu.copy_stream())?;
        Ok(copy)
    }

    /// Everything that is queued from now on, in this pass and later ones, runs after the copy.
    ///
    /// # Errors
    ///
    /// [`CudaError::Misuse`] if it is a copy to another device; [`CudaError::Lost`].
    pub fn await_copy(&mut self, copy: &AheadCopy) -> Result<()> {
        let gpu = self.gpu();
        gpu.enter()?;
        if !Arc::ptr_eq(gpu, &copy.gpu) {
            return Err(CudaError::misuse("await copy", "the copy is to another device"));
        }
        gpu.wait_in_stream(gpu.stream(), copy.event)
    }
}

impl Drop for AheadCopy {
    fn drop(&mut self) {
        // A stream that waits for the event waits for the record that it had then.
        self.gpu.give_back_event(EventKind::Wait, self.event);
    }
}

impl fmt::Debug for AheadCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AheadCopy").field("gpu", &self.gpu.info().ordinal).finish_non_exhaustive()
    }
}
