//! The threads that are a device's own.

use polylance_backend::{BackendError, Result};
use polylance_encoder::ModelError;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{PoolError, spec::DeviceSpec};

/// A device's name and its threads, pinned where the device is a set of cores.
#[derive(Debug)]
pub(crate) struct DeviceThreads {
    name: String,
    spec: DeviceSpec,
    threads: ThreadPool,
}

impl DeviceThreads {
    pub(crate) fn new(spec: &DeviceSpec) -> std::result::Result<Self, PoolError> {
        let pinned = match spec {
            DeviceSpec::Cores(cores) => cores.clone(),
            DeviceSpec::Cpu | DeviceSpec::Cuda(_) => Vec::new(),
        };
        let name = spec.to_string();
        let device = name.clone();
        let threads = ThreadPoolBuilder::new()
            .num_threads(spec.threads())
            .thread_name(move |at| format!("{device} {at}"))
            .start_handler(move |at| {
                if let Some(&id) = pinned.get(at) {
                    // A thread that may not be pinned still computes.
                    let _pinned: bool = core_affinity::set_for_current(core_affinity::CoreId { id });
                }
            })
            .build()
            .map_err(|error| PoolError::Thread(std::io::Error::other(error)))?;
        Ok(Self { name, spec: spec.clone(), threads })
    }

    /// New threads on the same cores, beside those that a panic went through or that make no progress.
    pub(crate) fn another(&self) -> Result<Self> {
        let failed = |error: PoolError| BackendError::Device { device: self.name.clone(), message: error.to_string() };
        Self::new(&self.spec).map_err(failed)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Computes on the device's threads; a model's error becomes one that says what a caller can do.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> std::result::Result<T, ModelError> + Send) -> Result<T> {
        self.threads.install(work).map_err(|error| match error {
            ModelError::Input { .. } => BackendError::Input(error.to_string()),
            ModelError::OutOfMemory(_) => BackendError::OutOfMemory { device: self.name.clone() },
            error => BackendError::Device { device: self.name.clone(), message: error.to_string() },
        })
    }
}
