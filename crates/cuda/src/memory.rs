//! Memory on a device, and memory of the host that a device can copy from and to by itself.

use std::{
    ffi::c_void,
    fmt,
    ops::Range,
    ptr::{self, NonNull},
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use half::{bf16, f16};

use crate::{
    driver_api::{DevicePointer, constant},
    error::{CudaError, Result},
    gpu::Gpu,
    kernel::Parameter,
};

/// Bytes on a device. They are freed when this is dropped; a kernel that still uses them finishes first.
///
/// The contents of new memory are arbitrary.
pub struct DeviceBuffer {
    gpu: Arc<Gpu>,
    start: DevicePointer,
    bytes: usize,
}

impl DeviceBuffer {
    /// Allocates `bytes` bytes, aligned to 256.
    ///
    /// # Errors
    ///
    /// [`CudaError::OutOfMemory`] with the bytes that are needed and those that are free; [`CudaError::Lost`].
    pub fn new(gpu: &Arc<Gpu>, bytes: usize) -> Result<Self> {
        gpu.enter()?;
        let mut start = 0;
        if bytes > 0 {
            // SAFETY: a place for the result is given.
            let status = unsafe { (gpu.driver().mem_alloc)(&raw mut start, bytes) };
            gpu.check("cuMemAlloc", status).map_err(|error| with_sizes(error, bytes, gpu.free_memory().ok()))?;
        }
        Ok(Self { gpu: Arc::clone(gpu), start, bytes })
    }

    /// The device that has the memory.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of it.
    pub fn all(&self) -> DeviceSlice<'_> {
        DeviceSlice { buffer: self, offset: 0, bytes: self.bytes }
    }

    /// The bytes of `range`.
    ///
    /// # Errors
    ///
    /// [`CudaError::Misuse`] if the range ends behind the buffer.
    pub fn slice(&self, range: Range<usize>) -> Result<DeviceSlice<'_>> {
        self.all().slice(range)
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // A lost device has lost its memory too, and after a reset the address may belong to other memory.
        if self.bytes > 0 && self.gpu.enter().is_ok() {
            // SAFETY: allocated in `new` and freed once. The driver waits for work that uses the memory.
            let status = unsafe { (self.gpu.driver().mem_free)(self.start) };
            // A failure is that of earlier work: the next call returns it.
            let _ = self.gpu.check("cuMemFree", status);
        }
    }
}

impl fmt::Debug for DeviceBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceBuffer")
            .field("gpu", &self.gpu.info().ordinal)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// A part of a [`DeviceBuffer`]. Kernels may write through it: the borrow keeps the memory alive but is not exclusive,
/// because all work on a device is in one order, except for [copies ahead](crate::Pass::copy_ahead).
#[derive(Debug, Clone, Copy)]
pub struct DeviceSlice<'a> {
    buffer: &'a DeviceBuffer,
    offset: usize,
    bytes: usize,
}

impl<'a> DeviceSlice<'a> {
    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of `range`, counted from the start of this slice.
    ///
    /// # Errors
    ///
    /// [`CudaError::Misuse`] if the range ends behind this slice.
    pub fn slice(&self, range: Range<usize>) -> Result<DeviceSlice<'a>> {
        if range.start > range.end || range.end > self.bytes {
            let reason = format!("bytes {} to {} of {}", range.start, range.end, self.bytes);
            return Err(CudaError::misuse("slice of device memory", reason));
        }
        Ok(DeviceSlice { buffer: self.buffer, offset: self.offset + range.start, bytes: range.end - range.start })
    }

    pub(crate) fn address(&self) -> DevicePointer {
        self.buffer.start + self.offset as u64
    }

    pub(crate) fn is_on(&self, gpu: &Gpu) -> bool {
        ptr::eq(&raw const *self.buffer.gpu, gpu)
    }
}

impl From<DeviceSlice<'_>> for Parameter {
    fn from(slice: DeviceSlice<'_>) -> Self {
        Self::Word(slice.address())
    }
}

impl From<Option<DeviceSlice<'_>>> for Parameter {
    fn from(slice: Option<DeviceSlice<'_>>) -> Self {
        Self::Word(slice.map_or(0, |slice| slice.address()))
    }
}

/// Plain old data: numbers without padding, for which any bytes are a value.
///
/// # Safety
///
/// Every bit pattern is a value, and there is no padding.
pub unsafe trait Pod: Copy + Send + Sync + 'static {}

macro_rules! pod {
    ($($type:ty),*) => {$(
        // SAFETY: a number, or an array of numbers: no padding, and every bit pattern is a value.
        unsafe impl Pod for $type {}
    )*};
}
pod!(u8, u16, u32, u64, i32, f32, bf16, f16, [u32; 2]);

/// Page-locked bytes of the host. A device copies from and to them while the host does something else.
///
/// A [`Pass`](crate::Pass) owns it while a copy uses it, and waiting for the pass returns it, so nothing reads or
/// writes it in between. In an [`Arc`], many passes can [copy from it](crate::Pass::copy_ahead), and nothing writes it.
pub struct PinnedBuffer {
    gpu: Arc<Gpu>,
    start: NonNull<u8>,
    bytes: usize,
    /// A device that failed may still use the memory: it is never freed.
    leaked: AtomicBool,
}

// SAFETY: owns its memory like a `Box<[u8]>`, and lends it by the rules of borrowing.
unsafe impl Send for PinnedBuffer {}
// SAFETY: as above: a shared reference lends shared slices only.
unsafe impl Sync for PinnedBuffer {}

impl PinnedBuffer {
    /// Allocates `bytes` bytes, all zero.
    ///
    /// # Errors
    ///
    /// [`CudaError::OutOfMemory`] if the system locks no more memory; [`CudaError::Lost`].
    pub fn new(gpu: &Arc<Gpu>, bytes: usize) -> Result<Self> {
        gpu.enter()?;
        let mut start: *mut c_void = ptr::null_mut();
        if bytes > 0 {
            // SAFETY: a place for the result is given.
            let status = unsafe { (gpu.driver().mem_host_alloc)(&raw mut start, bytes, constant::HOST_ALLOC_PORTABLE) };
            gpu.check("cuMemHostAlloc", status).map_err(|error| with_sizes(error, bytes, None))?;
        }
        let Some(start) = NonNull::new(start.cast::<u8>()) else {
            // Aligned for every type that may be read from it.
            let start = NonNull::<u64>::dangling().cast();
            return Ok(Self { gpu: Arc::clone(gpu), start, bytes: 0, leaked: AtomicBool::new(false) });
        };
        // SAFETY: the driver allocated `bytes` bytes at `start`.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Self { gpu: Arc::clone(gpu), start, bytes, leaked: AtomicBool::new(false) })
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes as numbers: as many as fit.
    pub fn as_slice<T: Pod>(&self) -> &[T] {
        // SAFETY: the memory starts at a page (or is empty, and the pointer aligned), holds as many `T`, is initialized
        // since `new`, and any bytes are a `T`. No copy writes to it: a pass would own the buffer.
        unsafe { slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / size_of::<T>()) }
    }

    /// The bytes as mutable numbers.
    pub fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and the exclusive borrow of the buffer is that of its bytes. No copy reads them
        // either: the pass would own the buffer, or a share of it.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes / size_of::<T>()) }
    }

    /// The address of a byte, for a copy of `bytes` bytes; `None` if that ends behind the buffer.
    pub(crate) fn address(&self, offset: usize, bytes: usize) -> Option<*mut c_void> {
        let end = offset.checked_add(bytes)?;
        // SAFETY: `offset` is within the buffer.
        (end <= self.bytes).then(|| unsafe { self.start.as_ptr().add(offset) }.cast())
    }

    pub(crate) fn is_on(&self, gpu: &Gpu) -> bool {
        ptr::eq(&raw const *self.gpu, gpu)
    }

    /// Never frees the memory: a device that failed may still use it.
    pub(crate) fn leak(&self) {
        self.leaked.store(true, Ordering::Relaxed);
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        // The memory belongs to the context: that of a lost device is freed when the device is reset, which waits for
        // this handle.
        if self.bytes > 0 && !*self.leaked.get_mut() && self.gpu.enter().is_ok() {
            // SAFETY: allocated in `new` and freed once; no copy uses it, since a pass would own the buffer or a share.
            let status = unsafe { (self.gpu.driver().mem_free_host)(self.start.as_ptr().cast()) };
            // A failure is that of earlier work: the next call returns it.
            let _ = self.gpu.check("cuMemFreeHost", status);
        }
    }
}

impl fmt::Debug for PinnedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedBuffer")
            .field("gpu", &self.gpu.info().ordinal)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Adds the sizes to an out-of-memory error.
fn with_sizes(error: CudaError, bytes: usize, free_bytes: Option<u64>) -> CudaError {
    match error {
        CudaError::OutOfMemory { device, call, .. } => {
            CudaError::OutOfMemory { device, call, needed: Some(bytes as u64), free: free_bytes }
        }
        error => error,
    }
}
