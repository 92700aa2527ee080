//! The devices that compute models.

use std::{fmt, sync::Arc};

use polylance_cuda::Gpu;

/// A device that a model is loaded onto.
#[derive(Debug, Clone)]
pub enum Device {
    /// The CPU, with the kernels for its instruction set.
    Cpu,
    /// An NVIDIA GPU, with our kernels.
    Cuda(Arc<Gpu>),
}

impl Device {
    /// Whether this is the CPU.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(gpu) => write!(f, "cuda:{} ({})", gpu.info().ordinal, gpu.info().name),
        }
    }
}
