//! The cores and GPUs of this machine. Devices are resolved against a [`Machine`] that is passed in, so that every
//! choice can be tested on a machine without a GPU.

use std::sync::OnceLock;

use polylance_encoder::{CudaError, GpuInfo};

use crate::spec::cores;

/// What a machine has to compute on.
#[derive(Debug)]
pub struct Machine {
    cores: Vec<usize>,
    /// Listed when a device name needs them: naming cores alone never loads the driver.
    gpus: OnceLock<Result<Vec<VisibleGpu>, NoGpu>>,
}

/// Why no GPU can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoGpu {
    /// The driver's own words.
    pub reason: String,
    /// Whether there is a driver: it is too old, say.
    pub has_driver: bool,
}

/// A GPU as the driver lists it; it is not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisibleGpu {
    /// The driver's number: `N` of `cuda:N`.
    pub ordinal: u32,
    /// Its name, `NVIDIA H200`.
    pub name: String,
    /// Its compute capability, major and minor.
    pub compute: (u32, u32),
    /// The CPU cores near it, when the system says which.
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
    /// When there is no driver, or none that can be used.
    pub fn gpus(&self) -> Result<&[VisibleGpu], &NoGpu> {
        self.gpus.get_or_init(detect).as_deref()
    }

    /// The GPU of this ordinal, when the driver lists it.
    pub fn gpu(&self, ordinal: u32) -> Option<&VisibleGpu> {
        self.gpus().ok()?.iter().find(|gpu| gpu.ordinal == ordinal)
    }
}

impl VisibleGpu {
    /// The least compute capability that the kernels are built for.
    pub const LEAST_COMPUTE: (u32, u32) = (8, 0);

    /// Whether the kernels run on it.
    pub fn is_usable(&self) -> bool {
        self.compute >= Self::LEAST_COMPUTE
    }

    /// Its instruction set, `sm_90`.
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
