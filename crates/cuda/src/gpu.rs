//! A device in use: its context, streams and kernels, and what happens when it fails.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    device_list::{self, GpuInfo},
    driver::Driver,
    driver_api::{Context, Device, Event, Module, Status, Stream, constant},
    error::{CudaError, Label, Result, Subject},
    kernel::{Kernel, KernelName},
    tensor_map::TensorMaps,
};

/// The oldest architecture that the kernels are compiled for.
const OLDEST_COMPUTE: (u32, u32) = (8, 0);

/// The kernels' binary, aligned because the driver reads words of it.
#[repr(C, align(64))]
struct Image<T: ?Sized>(T);
static IMAGE: &Image<[u8]> = &Image(*include_bytes!("../assets/polylance.fatbin"));

/// A device, opened: everything on it is made through this handle, and buffers keep it alive.
///
/// All methods may be called from any thread at any time. After a [`CudaError::Lost`] every call returns that error
/// immediately.
pub struct Gpu {
    driver: &'static Driver,
    info: GpuInfo,
    device: Device,
    context: Context,
    module: Module,
    stream: Stream,
    /// Copies that run while the other stream computes.
    copy_stream: Stream,
    /// Held while one pass is queued, so that launches of two threads do not mix.
    queueing: Mutex<()>,
    kernels: Mutex<HashMap<KernelName, Arc<Kernel>>>,
    tensor_maps: Mutex<TensorMaps>,
    /// Events that no pass uses at the moment, by kind.
    idle_events: [Mutex<Vec<Event>>; 2],
    lost: OnceLock<CudaError>,
    profile: AtomicBool,
    hopper_gemm: AtomicBool,
}

/// The purpose of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// A thread sleeps until the stream reaches it.
    Wait,
    /// It records when the stream reaches it.
    Time,
}

/// The references of this process to a device's primary context.
#[derive(Default)]
struct Holds {
    /// [`Gpu`]s alive.
    alive: usize,
    /// References of lost devices that were not released, because a call to a lost device may never return.
    unreleased: usize,
}

/// By ordinal.
static HOLDS: Mutex<BTreeMap<u32, Holds>> = Mutex::new(BTreeMap::new());

/// The guard, also after a panic of another thread: the values behind these mutexes are never half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// Opens a device: creates its context, loads the kernels, creates the streams.
    ///
    /// # Errors
    ///
    /// [`CudaError::NoDriver`], [`CudaError::OldDriver`], [`CudaError::NoDevice`], [`CudaError::Unsupported`] below
    /// compute capability 8.0, [`CudaError::OutOfMemory`], or [`CudaError::Lost`] if the device failed before and was
    /// not [reset](Gpu::reset).
    pub fn open(ordinal: u32) -> Result<Arc<Self>> {
        let driver = Driver::get()?;
        let (info, device) = GpuInfo::read(driver, ordinal)?;
        if info.compute < OLDEST_COMPUTE {
            let label = label(&info);
            return Err(CudaError::Unsupported { device: label.to_string(), compute: info.compute });
        }
        let context = retain_context(driver, &info, device)?;
        // From here on, dropping the handle releases everything that was created.
        let mut gpu = Self {
            driver,
            info,
            device,
            context,
            module: Module::NULL,
            stream: Stream::NULL,
            copy_stream: Stream::NULL,
            queueing: Mutex::new(()),
            kernels: Mutex::default(),
            tensor_maps: Mutex::default(),
            idle_events: [Mutex::default(), Mutex::default()],
            lost: OnceLock::new(),
            profile: AtomicBool::new(false),
            hopper_gemm: AtomicBool::new(true),
        };
        gpu.enter()?;
        let mut module = Module::NULL;
        // SAFETY: the image is a complete binary, and a place for the result is given.
        let status = unsafe { (driver.module_load_data)(&raw mut module, IMAGE.0.as_ptr().cast()) };
        gpu.check("cuModuleLoadData", status)?;
        gpu.module = module;
        gpu.stream = gpu.create_stream()?;
        gpu.copy_stream = gpu.create_stream()?;
        Ok(Arc::new(gpu))
    }

    fn create_stream(&self) -> Result<Stream> {
        let mut stream = Stream::NULL;
        // SAFETY: a place for the result is given.
        let status = unsafe { (self.driver.stream_create)(&raw mut stream, constant::STREAM_NON_BLOCKING) };
        self.check("cuStreamCreate", status)?;
        Ok(stream)
    }

    /// Destroys the context of a device after a loss, so that [`Gpu::open`] starts with a new one.
    ///
    /// # Errors
    ///
    /// [`CudaError::InUse`] while a [`Gpu`] of that device is alive, or a buffer or pass made from one; the driver's
    /// error if the device does not recover.
    pub fn reset(ordinal: u32) -> Result<()> {
        let driver = Driver::get()?;
        let device = device_list::device(driver, ordinal)?;
        let mut holds = lock(&HOLDS);
        let holds = holds.entry(ordinal).or_default();
        if holds.alive > 0 {
            return Err(CudaError::InUse { ordinal, open: holds.alive });
        }
        for _ in 0..std::mem::take(&mut holds.unreleased) {
            // The status is that of the loss; only the result of the reset matters.
            // SAFETY: this reference was retained and not released.
            unsafe { (driver.primary_ctx_release)(device) };
        }
        // SAFETY: nothing made from the context is alive, as the count of its users shows.
        let status = unsafe { (driver.primary_ctx_reset)(device) };
        let label = Label { ordinal, count: ordinal + 1, name: "", compute: (0, 0) };
        driver.check("cuDevicePrimaryCtxReset", status, Subject::Device(label))
    }

    /// The driver's description of the device.
    pub fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// Bytes of device memory that are free now, for all programs together.
    ///
    /// # Errors
    ///
    /// [`CudaError::Lost`].
    pub fn free_memory(&self) -> Result<u64> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: places for both results are given.
        let status = unsafe { (self.driver.mem_get_info)(&raw mut free, &raw mut total) };
        self.check("cuMemGetInfo", status)?;
        Ok(free as u64)
    }

    /// Whether the device has failed.
    pub fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// Whether passes that begin from now on measure the time of every kernel ([`Done::times`](crate::Done::times)).
    /// That costs a few microseconds per launch; off by default.
    pub fn set_profile(&self, on: bool) {
        self.profile.store(on, Ordering::Relaxed);
    }

    pub(crate) fn profiles(&self) -> bool {
        self.profile.load(Ordering::Relaxed)
    }

    /// Whether matrix products on compute capability 9.0 use the kernel made for it; on by default. The two kernels
    /// round differently: set this before the first pass only.
    pub fn set_hopper_gemm(&self, on: bool) {
        self.hopper_gemm.store(on, Ordering::Relaxed);
    }

    /// Whether matrix products use the kernel for compute capability 9.0, where the sizes allow it.
    pub(crate) fn uses_hopper_gemm(&self) -> bool {
        self.info.compute == (9, 0) && self.hopper_gemm.load(Ordering::Relaxed)
    }

    /// Waits until everything that passes queued is done, except for [copies ahead](crate::Pass::copy_ahead) that
    /// nothing waits for.
    ///
    /// # Errors
    ///
    /// [`CudaError::Lost`], also for a failure of work that was queued before.
    pub fn synchronize(&self) -> Result<()> {
        self.synchronize_stream(self.stream)
    }

    /// Waits until a stream of this handle is empty.
    pub(crate) fn synchronize_stream(&self, stream: Stream) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream is this handle's own.
        let status = unsafe { (self.driver.stream_synchronize)(stream) };
        self.check("cuStreamSynchronize", status)
    }

    pub(crate) fn driver(&self) -> &'static Driver {
        self.driver
    }

    pub(crate) fn module(&self) -> Module {
        self.module
    }

    pub(crate) fn stream(&self) -> Stream {
        self.stream
    }

    pub(crate) fn copy_stream(&self) -> Stream {
        self.copy_stream
    }

    pub(crate) fn lock_stream(&self) -> MutexGuard<'_, ()> {
        lock(&self.queueing)
    }

    pub(crate) fn kernels(&self) -> MutexGuard<'_, HashMap<KernelName, Arc<Kernel>>> {
        lock(&self.kernels)
    }

    pub(crate) fn tensor_maps(&self) -> MutexGuard<'_, TensorMaps> {
        lock(&self.tensor_maps)
    }

    /// Fails if the device is lost, otherwise makes the context current on this thread. Needed before every driver
    /// call, because another device's context may be current.
    pub(crate) fn enter(&self) -> Result<()> {
        if let Some(error) = self.lost.get() {
            return Err(error.clone());
        }
        // SAFETY: the context is retained for as long as this handle lives.
        let status = unsafe { (self.driver.ctx_set_current)(self.context) };
        self.check("cuCtxSetCurrent", status)
    }

    /// The error for a status other than success. A loss of the device is remembered.
    pub(crate) fn check(&self, call: &'static str, status: Status) -> Result<()> {
        let result = self.driver.check(call, status, Subject::Device(label(&self.info)));
        match result {
            Err(error) if error.is_lost() => Err(self.lost.get_or_init(|| error).clone()),
            result => result,
        }
    }

    /// An unused event.
    pub(crate) fn take_event(&self, kind: EventKind) -> Result<Event> {
        if let Some(event) = lock(&self.idle_events[kind as usize]).pop() {
            return Ok(event);
        }
        let flags = match kind {
            EventKind::Wait => constant::EVENT_BLOCKING_SYNC | constant::EVENT_DISABLE_TIMING,
            EventKind::Time => constant::EVENT_BLOCKING_SYNC,
        };
        let mut event = Event::NULL;
        // SAFETY: a place for the result is given.
        let status = unsafe { (self.driver.event_create)(&raw mut event, flags) };
        self.check("cuEventCreate", status)?;
        Ok(event)
    }

    /// Keeps an event for reuse.
    pub(crate) fn give_back_event(&self, kind: EventKind, event: Event) {
        lock(&self.idle_events[kind as usize]).push(event);
    }

    /// The stream reaches the event after everything queued in it before.
    pub(crate) fn record(&self, event: Event, stream: Stream) -> Result<()> {
        // SAFETY: event and stream are of this context and alive.
        let status = unsafe { (self.driver.event_record)(event, stream) };
        self.check("cuEventRecord", status)
    }

    /// What is queued in the stream from now on runs after the event's latest record. The event may be recorded again
    /// right away: that does not change what the stream waits for.
    pub(crate) fn wait_in_stream(&self, stream: Stream, event: Event) -> Result<()> {
        // SAFETY: event and stream are of this context and alive; the only flag that applies is 0.
        let status = unsafe { (self.driver.stream_wait_event)(stream, event, 0) };
        self.check("cuStreamWaitEvent", status)
    }
}

/// Retains the primary context, and counts it.
fn retain_context(driver: &Driver, info: &GpuInfo, device: Device) -> Result<Context> {
    let mut holds = lock(&HOLDS);
    let mut context = Context::NULL;
    // SAFETY: a place for the result is given.
    let status = unsafe { (driver.primary_ctx_retain)(&raw mut context, device) };
    driver.check("cuDevicePrimaryCtxRetain", status, Subject::Device(label(info)))?;
    holds.entry(info.ordinal).or_default().alive += 1;
    Ok(context)
}

fn label(info: &GpuInfo) -> Label<'_> {
    Label { ordinal: info.ordinal, count: info.ordinal + 1, name: &info.name, compute: info.compute }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // A call to a lost device may never return: nothing is released here. `Gpu::reset` destroys the whole context.
        let entered = self.enter().is_ok();
        if entered {
            for events in &self.idle_events {
                for event in lock(events).drain(..) {
                    // SAFETY: the event is of this context, and nobody waits for an idle one.
                    unsafe { (self.driver.event_destroy)(event) };
                }
            }
            for stream in [self.stream, self.copy_stream] {
                if stream != Stream::NULL {
                    // SAFETY: the stream is this handle's own.
                    unsafe { (self.driver.stream_destroy)(stream) };
                }
            }
            if self.module != Module::NULL {
                // SAFETY: every launch of its kernels was waited for, because passes borrow this handle.
                unsafe { (self.driver.module_unload)(self.module) };
            }
        }
        let mut holds = lock(&HOLDS);
        let holds = holds.entry(self.info.ordinal).or_default();
        holds.alive = holds.alive.saturating_sub(1);
        if entered {
            // SAFETY: retained in `open`, released once.
            unsafe { (self.driver.primary_ctx_release)(self.device) };
        } else {
            holds.unreleased += 1;
        }
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("info", &self.info).field("lost", &self.lost.get()).finish_non_exhaustive()
    }
}
