//! Copies between a device and ordinary memory of the host, for weights and for tests.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    error::{CudaError, Result},
    gpu::Gpu,
    memory::{DeviceSlice, PinnedBuffer},
    pass::{HostSlot, Pending},
};

/// Copies from ordinary memory to a device, through two page-locked buffers: one is filled while the other is copied.
///
/// The copies are part of the device's one order: passes that begin later see them.
#[derive(Debug)]
pub struct Uploader {
    gpu: Arc<Gpu>,
    chunk_bytes: usize,
    idle: Vec<PinnedBuffer>,
    copying: VecDeque<(Pending, HostSlot)>,
}

impl Uploader {
    /// Allocates the two buffers, of `chunk_bytes` each (rounded up to a multiple of 256).
    ///
    /// # Errors
    ///
    /// [`CudaError::OutOfMemory`] if the system locks no more memory; [`CudaError::Lost`].
    pub fn new(gpu: &Arc<Gpu>, chunk_bytes: usize) -> Result<Self> {
        let chunk_bytes = chunk_bytes.max(1).next_multiple_of(256);
        let idle = vec![PinnedBuffer::new(gpu, chunk_bytes)?, PinnedBuffer::new(gpu, chunk_bytes)?];
        Ok(Self { gpu: Arc::clone(gpu), chunk_bytes, idle, copying: VecDeque::new() })
    }

    /// Copies `from` to the device. It may be changed as soon as this returns.
    ///
    /// # Errors
    ///
    /// [`CudaError::Misuse`] if the sizes differ or `to` is another device's; [`CudaError::Lost`].
    pub fn upload(&mut self, from: &[u8], to: DeviceSlice<'_>) -> Result<()> {
        if from.len() != to.bytes() {
            let reason = format!("{} bytes do not fit {} bytes of device memory", from.len(), to.bytes());
            return Err(CudaError::misuse("upload", reason));
        }
        self.upload_with(to, |offset, chunk| chunk.copy_from_slice(&from[offset..offset + chunk.len()]))
    }

    /// Copies bytes that `fill` writes. It is called for one part after another, with the part's offset in `to` and the
    /// bytes to write. All parts but the last are multiples of 256 bytes.
    ///
    /// # Errors
    ///
    /// [`CudaError::Misuse`] if `to` is another device's; [`CudaError::Lost`].
    pub fn upload_with(&mut self, to: DeviceSlice<'_>, mut fill: impl FnMut(usize, &mut [u8])) -> Result<()> {
        let mut offset = 0;
        while offset < to.bytes() {
            let end = to.bytes().min(offset + self.chunk_bytes);
            let part = to.slice(offset..end)?;
            let mut pinned = self.idle_buffer()?;
            fill(offset, &mut pinned.as_mut_slice()[..part.bytes()]);
            let mut pass = self.gpu.begin()?;
            let slot = pass.hold(pinned)?;
            pass.upload(slot, 0, part)?;
            self.copying.push_back((pass.finish()?, slot));
            offset = end;
        }
        Ok(())
    }

    /// Waits for all copies.
    ///
    /// # Errors
    ///
    /// [`CudaError::Lost`].
    pub fn finish(mut self) -> Result<()> {
        while let Some((pending, _)) = self.copying.pop_front() {
            pending.wait()?;
        }
        Ok(())
    }

    /// A buffer that no copy uses. One that an earlier error lost is replaced.
    fn idle_buffer(&mut self) -> Result<PinnedBuffer> {
        if let Some(pinned) = self.idle.pop() {
            return Ok(pinned);
        }
        if let Some((pending, slot)) = self.copying.pop_front()
            && let Some(pinned) = pending.wait()?.take(slot)
        {
            return Ok(pinned);
        }
        PinnedBuffer::new(&self.gpu, self.chunk_bytes)
    }
}

impl Gpu {
    /// Copies device memory to `to`, and waits for it and everything queued before.
    ///
    /// # Errors
    ///
    /// [`CudaError::Misuse`] if the sizes differ or `from` is another device's; [`CudaError::OutOfMemory`] if the
    /// system locks no more memory; [`CudaError::Lost`].
    pub fn download(self: &Arc<Self>, from: DeviceSlice<'_>, to: &mut [u8]) -> Result<()> {
        if from.bytes() != to.len() {
            let reason = format!("{} bytes of device memory do not fit {} bytes", from.bytes(), to.len());
            return Err(CudaError::misuse("download", reason));
        }
        let mut pass = self.begin()?;
        let slot = pass.hold(PinnedBuffer::new(self, to.len())?)?;
        pass.download(from, slot, 0)?;
        if let Some(pinned) = pass.finish()?.wait()?.take(slot) {
            to.copy_from_slice(pinned.as_slice());
        }
        Ok(())
    }
}
