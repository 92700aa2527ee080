//! The threads of a device.

use core_affinity::CoreId;
use polylance_backend::{BackendError, Result};
use polylance_encoder::ModelError;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{
    error::{PoolError, with_causes},
    selection::DeviceSpec,
};

/// A device's name and its threads, pinned to its cores or near its GPU.
#[derive(Debug)]
pub(crate) struct DeviceThreads {
    name: String,
    /// The cores of the first threads.
    pinned: Vec<usize>,
    threads: ThreadPool,
}

impl DeviceThreads {
    /// The threads of cores.
    pub(crate) fn of_cores(spec: &DeviceSpec) -> std::result::Result<Self, PoolError> {
        let pinned = match spec {
            DeviceSpec::Cores(cores) => cores.clone(),
            DeviceSpec::Cpu | DeviceSpec::Cuda(_) => Vec::new(),
        };
        Self::start(spec.to_string(), pinned, spec.threads())
    }

    /// The thread of a GPU, or of several that a model is spread over, on a core near them; on any core if `None`.
    pub(crate) fn of_gpu(name: &str, near_core: Option<usize>) -> std::result::Result<Self, PoolError> {
        Self::start(name.to_owned(), near_core.into_iter().collect(), 1)
    }

    fn start(name: String, pinned: Vec<usize>, threads: usize) -> std::result::Result<Self, PoolError> {
        let (device, cores) = (name.clone(), pinned.clone());
        let threads = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(move |at| format!("{device} {at}"))
            .start_handler(move |at| {
                if let Some(&id) = cores.get(at) {
                    // A thread that could not be pinned still computes.
                    let _pinned: bool = core_affinity::set_for_current(CoreId { id });
                }
            })
            .build()
            .map_err(|error| PoolError::Thread(std::io::Error::other(error)))?;
        Ok(Self { name, pinned, threads })
    }

    /// New threads on the same cores, next to those that panicked or make no progress.
    pub(crate) fn respawn(&self) -> Result<Self> {
        let failed = |error: PoolError| self.device_error(&error);
        Self::start(self.name.clone(), self.pinned.clone(), self.threads.current_num_threads()).map_err(failed)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Computes on the device's threads. A model's error becomes the backend error that a caller can act on.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> std::result::Result<T, ModelError> + Send) -> Result<T> {
        self.threads.install(work).map_err(|error| match error {
            ModelError::Input { .. } => BackendError::Input(error.to_string()),
            ModelError::OutOfMemory(_) => BackendError::OutOfMemory { device: self.name.clone() },
            error => self.device_error(&error),
        })
    }

    fn device_error(&self, error: &dyn std::error::Error) -> BackendError {
        BackendError::Device { device: self.name.clone(), message: with_causes(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::cores;

    /// The cores that the device's thread may run on.
    fn cores_of(threads: &DeviceThreads) -> Vec<usize> {
        threads.run(|| Ok(cores())).unwrap()
    }

    #[test]
    fn threads_are_pinned_to_the_cores_of_their_device() {
        let allowed = cores();
        let last = allowed[allowed.len() - 1];
        let of_core = DeviceThreads::of_cores(&DeviceSpec::Cores(vec![last])).unwrap();
        let near_gpu = DeviceThreads::of_gpu("cuda:0", Some(last)).unwrap();
        for threads in [of_core.respawn().unwrap(), of_core, near_gpu.respawn().unwrap(), near_gpu] {
            assert_eq!(cores_of(&threads), [last], "{}", threads.name());
        }
        assert_eq!(cores_of(&DeviceThreads::of_gpu("cuda:0", None).unwrap()), allowed);
    }

    #[test]
    fn missing_core_leaves_the_thread_unpinned() {
        let threads = DeviceThreads::of_gpu("cuda:0", Some(1 << 9)).unwrap();
        assert_eq!(cores_of(&threads), cores());
    }
}
