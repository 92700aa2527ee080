//! Copies and launches of one batch, queued in order on a device, and waiting for them.
//!
//! A pass holds the stream while it is queued, so batches of several threads follow one another and never mix. It owns
//! the page-locked buffers that its copies use, and passes them to the [`Pending`], which returns them once the device
//! is done.

use std::{
    fmt, mem,
    sync::{Arc, MutexGuard},
};

use crate::{
    driver_api::Event,
    error::{CudaError, Result},
    gpu::{EventKind, Gpu},
    kernel::{Kernel, KernelName, Parameter},
    launch::Launch,
    memory::{DeviceSlice, PinnedBuffer},
};

/// A batch being queued. Nothing else can be queued on the device until it is [finished](Pass::finish) or dropped.
///
/// Dropping it waits for what was queued.
pub struct Pass<'g> {
    gpu: &'g Arc<Gpu>,
    _stream: MutexGuard<'g, ()>,
    work: Work,
    /// Whether the device may still use the memory of the pass.
    queued: bool,
    profile: bool,
    label: &'static str,
}

/// The resources of a pass until the device is done with it.
#[derive(Default)]
struct Work {
    pinned: Vec<PinnedBuffer>,
    /// The sources of copies ahead.
    shared: Vec<Arc<PinnedBuffer>>,
    timed: Vec<Timed>,
}

/// A launch between two events.
struct Timed {
    label: &'static str,
    kernel: Arc<Kernel>,
    start: Event,
    stop: Event,
}

/// The index of a page-locked buffer within its pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostSlot(usize);

/// The time of a kernel within a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelTime {
    /// The label that was set by [`Pass::mark`] when it was launched, or the empty text.
    pub label: &'static str,
    /// The kernel's name.
    pub kernel: String,
    /// The number of launches under that label.
    pub launches: u32,
    /// The time of these launches together.
    pub milliseconds: f64,
}

impl Gpu {
    /// Starts a pass. Waits while another thread queues one: a thread that starts a second pass before the first is
    /// finished or dropped deadlocks.
    ///
    /// # Errors
    ///
    /// [`CudaError::Lost`].
    pub fn begin(self: &Arc<Self>) -> Result<Pass<'_>> {
        let stream = self.lock_stream();
        self.enter()?;
        let profile = self.profiles();
        Ok(Pass { gpu: self, _stream: stream, work: Work::default(), queued: false, profile, label: "" })
    }
}

impl Pass<'_> {
    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        self.gpu
    }

    /// Takes a page-locked buffer for copies of this pass, until the pass has been waited for.
    ///
    /// # Errors
    ///
    /// [`CudaError::Misuse`] if the buffer was made from another [`Gpu`]; it is dropped then.
    pub fn hold(&mut self, pinned: PinnedBuffer) -> Result<HostSlot> {
        if !pinned.is_on(self.gpu) {
            return Err(CudaError::misuse("hold", "the host buffer was made for another device"));
        }
        self.work.pinned.push(pinned);
        Ok(HostSlot(self.work.pinned.len() - 1))
    }

    /// Copies `to.bytes()` bytes from the host buffer, starting at `offset`, to the device.
    ///
    /// # Errors
    ///
    /// [`CudaError::Misuse`] if the host buffer is smaller; [`CudaError::Lost`].
    pub fn upload(&mut self, from: HostSlot, offset: usize, to: DeviceSlice<'_>) -> Result<()> {
        let Some(host) = self.copy_address("upload", from, offset, to)? else { return Ok(()) };
        self.queued = true;
        // SAFETY: the device memory is of this device and `to.bytes()` long; the host memory is as long, and the pass
        // owns it until the copy is over.
        let status = unsafe { (self.gpu.driver().memcpy_to_device)(to.address(), host, to.bytes(), self.gpu.stream()) };
        self.gpu.check("cuMemcpyHtoDAsync", status)
    }

    /// Copies `from.bytes()` bytes from the device to the host buffer, starting at `offset`.
    ///
    /// # Errors
    ///
    /// [`CudaError::Misuse`] if the host buffer is smaller; [`CudaError::Lost`].
    pub fn download(&mut self, from: DeviceSlice<'_>, to: HostSlot, offset: usize) -> Result<()> {
        let Some(host) = self.copy_address("download", to, offset, from)? else { return Ok(()) };
        self.queued = true;
        // SAFETY: as in `upload`, in the other direction.
        let status =
            unsafe { (self.gpu.driver().memcpy_to_host)(host, from.address(), from.bytes(), self.gpu.stream()) };
        self.gpu.check("cuMemcpyDtoHAsync", status)
    }

    /// Sets every byte to zero.
    ///
    /// # Errors
    ///
    /// [`CudaError::Misuse`] if the memory is another device's; [`CudaError::Lost`].
    pub fn zero(&mut self, to: DeviceSlice<'_>) -> Result<()> {
        self.gpu.enter()?;
        self.check_device("zero", to)?;
        if to.bytes() == 0 {
            return Ok(());
        }
        self.queued = true;
        // SAFETY: the memory is of this device and `to.bytes()` long.
        let status = unsafe { (self.gpu.driver().memset)(to.address(), 0, to.bytes(), self.gpu.stream()) };
        self.gpu.check("cuMemsetD8Async", status)
    }

    /// Labels the launches that follow, in the times that [`Gpu::set_profile`] switches on.
    pub fn mark(&mut self, label: &'static str) {
        self.label = label;
    }

    /// Ends the pass: other threads can queue theirs, and the result can be waited for.
    ///
    /// # Errors
    ///
    /// [`CudaError::Lost`].
    pub fn finish(mut self) -> Result<Pending> {
        self.gpu.enter()?;
        let event = self.gpu.take_event(EventKind::Wait)?;
        if let Err(error) = self.record_end(event) {
            self.gpu.give_back_event(EventKind::Wait, event);
            return Err(error);
        }
        self.queued = false;
        Ok(Pending { gpu: Arc::clone(self.gpu), event, work: Some(mem::take(&mut self.work)) })
    }

    /// Records the event behind everything that uses memory of this pass.
    fn record_end(&self, event: Event) -> Result<()> {
        if !self.work.shared.is_empty() {
            self.gpu.record(event, self.gpu.copy_stream())?;
            self.gpu.wait_in_stream(self.gpu.stream(), event)?;
        }
        self.gpu.record(event, self.gpu.stream())
    }

    /// Keeps the source of a copy ahead until the pass has been waited for.
    pub(crate) fn share(&mut self, pinned: &Arc<PinnedBuffer>) {
        self.queued = true;
        self.work.shared.push(Arc::clone(pinned));
    }

    /// Waits for everything that uses memory of this pass.
    fn synchronize(&self) -> Result<()> {
        self.gpu.synchronize()?;
        if self.work.shared.is_empty() { Ok(()) } else { self.gpu.synchronize_stream(self.gpu.copy_stream()) }
    }

    /// Queues a launch, with its time if profiling is on.
    ///
    /// # Safety
    ///
    /// That of [`Gpu::launch`], except that the context is made current here.
    pub(crate) unsafe fn launch(
        &mut self,
        name: KernelName,
        launch: Launch,
        parameters: &mut [Parameter],
    ) -> Result<()> {
        self.gpu.enter()?;
        let kernel = self.gpu.kernel(name)?;
        self.queued = true;
        if !self.profile {
            // SAFETY: by this function's contract; the context is current.
            return unsafe { self.gpu.launch(&kernel, launch, parameters) };
        }
        let start = self.gpu.take_event(EventKind::Time)?;
        self.gpu.record(start, self.gpu.stream())?;
        // SAFETY: as above.
        unsafe { self.gpu.launch(&kernel, launch, parameters) }?;
        let stop = self.gpu.take_event(EventKind::Time)?;
        self.gpu.record(stop, self.gpu.stream())?;
        self.work.timed.push(Timed { label: self.label, kernel, start, stop });
        Ok(())
    }

    /// Fails if memory is of another device.
    pub(crate) fn check_device(&self, operation: impl fmt::Display, slice: DeviceSlice<'_>) -> Result<()> {
        if slice.is_on(self.gpu) { Ok(()) } else { Err(CudaError::misuse(operation, "the memory is another device's")) }
    }

    /// The host address of a copy; `None` if there is nothing to copy.
    fn copy_address(
        &self,
        operation: &'static str,
        slot: HostSlot,
        offset: usize,
        device: DeviceSlice<'_>,
    ) -> Result<Option<*mut std::ffi::c_void>> {
        self.gpu.enter()?;
        self.check_device(operation, device)?;
        let Some(pinned) = self.work.pinned.get(slot.0) else {
            return Err(CudaError::misuse(operation, "the host buffer is another pass's"));
        };
        let Some(address) = pinned.address(offset, device.bytes()) else {
            let reason =
                format!("{} bytes from {offset} do not fit a host buffer of {}", device.bytes(), pinned.bytes());
            return Err(CudaError::misuse(operation, reason));
        };
        Ok((device.bytes() > 0).then_some(address))
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let unfinished = self.queued && self.synchronize().is_err();
        let work = mem::take(&mut self.work);
        if unfinished {
            work.leak();
        } else {
            work.give_back_events(self.gpu);
        }
    }
}

impl fmt::Debug for Pass<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("gpu", &self.gpu.info().ordinal).finish_non_exhaustive()
    }
}

impl Work {
    /// Leaks the memory that the device may still use.
    fn leak(self) {
        self.pinned.iter().for_each(PinnedBuffer::leak);
        self.shared.iter().for_each(|pinned| pinned.leak());
    }

    fn give_back_events(&self, gpu: &Gpu) {
        for timed in &self.timed {
            gpu.give_back_event(EventKind::Time, timed.start);
            gpu.give_back_event(EventKind::Time, timed.stop);
        }
    }

    /// The times of all launches, added up by label and kernel, in the order of their first launch.
    fn times(&self, gpu: &Gpu) -> Result<Vec<KernelTime>> {
        let mut times: Vec<KernelTime> = Vec::new();
        for Timed { label, kernel, start, stop } in &self.timed {
            let mut milliseconds = 0.0;
            // SAFETY: both events were recorded and reached; a place for the result is given.
            let status = unsafe { (gpu.driver().event_elapsed_time)(&raw mut milliseconds, *start, *stop) };
            gpu.check("cuEventElapsedTime", status)?;
            let milliseconds = f64::from(milliseconds);
            match times.iter_mut().find(|time| time.label == *label && time.kernel == kernel.name) {
                Some(time) => {
                    time.launches += 1;
                    time.milliseconds += milliseconds;
                }
                None => times.push(KernelTime { label, kernel: kernel.name.clone(), launches: 1, milliseconds }),
            }
        }
        Ok(times)
    }
}

/// A pass that is queued or running. Dropping it waits, as [`Pending::wait`] does.
pub struct Pending {
    gpu: Arc<Gpu>,
    event: Event,
    /// Taken by the first wait.
    work: Option<Work>,
}

impl Pending {
    /// Sleeps until the device has finished the pass, and returns its host buffers.
    ///
    /// # Errors
    ///
    /// [`CudaError::Lost`]; the host buffers are not returned then, because the device may still write to them.
    pub fn wait(mut self) -> Result<Done> {
        self.settle()
    }

    fn settle(&mut self) -> Result<Done> {
        let Some(work) = self.work.take() else { return Ok(Done { pinned: Vec::new(), times: Vec::new() }) };
        if let Err(error) = self.synchronize() {
            work.leak();
            return Err(error);
        }
        self.gpu.give_back_event(EventKind::Wait, self.event);
        let times = work.times(&self.gpu);
        work.give_back_events(&self.gpu);
        Ok(Done { times: times?, pinned: work.pinned.into_iter().map(Some).collect() })
    }

    fn synchronize(&self) -> Result<()> {
        self.gpu.enter()?;
        // SAFETY: the event was recorded by `finish` and is this pass's own until it is given back.
        let status = unsafe { (self.gpu.driver().event_synchronize)(self.event) };
        self.gpu.check("cuEventSynchronize", status)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // A failure is remembered by the device.
        let _ = self.settle();
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("gpu", &self.gpu.info().ordinal).finish_non_exhaustive()
    }
}

/// The results of a finished pass.
#[derive(Debug)]
pub struct Done {
    pinned: Vec<Option<PinnedBuffer>>,
    times: Vec<KernelTime>,
}

impl Done {
    /// The host buffer of a slot. `None` if it was taken before, or the slot is another pass's.
    pub fn take(&mut self, slot: HostSlot) -> Option<PinnedBuffer> {
        self.pinned.get_mut(slot.0)?.take()
    }

    /// The times of the kernels, by label and kernel; empty unless [`Gpu::set_profile`] is on.
    pub fn times(&self) -> &[KernelTime] {
        &self.times
    }
}
