//! The cores and GPUs of a machine. Devices are resolved against a [`Machine`] that is passed in, so that every choice
//! can be tested without a GPU.

use std::sync::OnceLock;

use polylance_encoder::{CudaError, GpuInfo};

use super::spec::cores;

/// The cores and GPUs of a machine.
#[derive(Debug)]
pub struct Machine {
    cores: Vec<usize>,
    /// Listed on first use: the driver is never loaded if only cores are named.
    gpus: OnceLock<Result<Vec<VisibleGpu>, NoGpu>>,
}

/// Why no GPU can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoGpu {
    /// The driver's message.
    pub reason: String,
    /// Whether there is a driver, for example one that is too old.
    pub has_driver: bool,
}

/// A GPU that the driver lists. It has not been opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisibleGpu {
    /// The driver's number of it: `N` in `cuda:N`.
    pub ordinal: u32,
    /// Its name, such as `NVIDIA H200`.
    pub name: String,
    /// Its compute capability, major and minor.
    pub compute: (u32, u32),
    /// The CPU cores near it, if the system lists them.
    pub near_cores: Option<Vec<usize>>,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn this() -> &'static Self {
        static THIS: OnceLock<Machine> = OnceLock::new();
        THIS.get_or_init(|| Self { cores: cores(), gpus: OnceLock::new() })
    }

    /// A machine with these cores and GPUs.
    pub fn new(cores: Vec<usize>, gpus: Result<Vec<VisibleGpu>, NoGpu>) -> Self {
        Self { cores, gpus: OnceLock::from(gpus) }
    }

    /// The cores that this process may run on.
    pub fn cores(&self) -> &[usize] {
        &self.cores
    }

    /// The GPUs that the driver lists.
    ///
    /// # Errors
    /// When there is no driver, or it cannot be used.
    pub fn gpus(&self) -> Result<&[VisibleGpu], &NoGpu> {
        self.gpus.get_or_init(detect).as_deref()
    }

    /// The GPU with this ordinal, if the driver lists it.
    pub fn gpu(&self, ordinal: u32) -> Option<&VisibleGpu> {
        self.gpus().ok()?.iter().find(|gpu| gpu.ordinal == ordinal)
    }
}

impl VisibleGpu {
    /// The lowest compute capability that the kernels support.
    pub const MIN_COMPUTE: (u32, u32) = (8, 0);

    /// Whether the kernels run on it.
    pub fn is_usable(&self) -> bool {
        self.compute >= Self::MIN_COMPUTE
    }

    /// Its instruction set, such as `sm_90`.
    pub fn architecture(&self) -> String {
        format!("sm_{}{}", self.compute.0, self.compute.1)
    }
}

fn detect() -> Result<Vec<VisibleGpu>, NoGpu> {
    let unusable = |error: CudaError| NoGpu {
        reason: error.to_string(),
        has_driver: !matches!(error, CudaError::NoDriver { .. } | CudaError::NoDevice { .. }),
    };
    let gpus = polylance_encoder::gpus_or_why().map_err(unusable)?;
    let visible = |gpu: &GpuInfo| VisibleGpu {
        ordinal: gpu.ordinal,
        name: gpu.name.clone(),
        compute: gpu.compute,
        near_cores: gpu.numa_cpus(),
    };
    Ok(gpus.iter().map(visible).collect())
}
