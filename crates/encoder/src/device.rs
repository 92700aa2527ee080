//! The devices that compute models.

use std::{fmt, slice, sync::Arc};

use polylance_cuda::Gpu;

/// A device that a model is loaded onto.
#[derive(Debug, Clone)]
pub enum Device {
    /// The CPU, with the kernels for its instruction set.
    Cpu,
    /// An NVIDIA GPU, with our kernels.
    Cuda(Arc<Gpu>),
    /// Several of them: each has consecutive layers, and a batch passes through one after another. They are different
    /// GPUs of one compute capability, at most as many as the model has layers. If their free memory does not hold the
    /// model, the one with the most has all layers.
    CudaStages(Arc<[Arc<Gpu>]>),
}

impl Device {
    /// Whether this is the CPU.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu)
    }

    /// The GPUs, in the order of their layers; none for the CPU.
    pub(crate) fn gpus(&self) -> &[Arc<Gpu>] {
        match self {
            Self::Cpu => &[],
            Self::Cuda(gpu) => slice::from_ref(gpu),
            Self::CudaStages(gpus) => gpus,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(_) | Self::CudaStages(_) => f.write_str(&joined_names(self.gpus())),
        }
    }
}

/// The names of GPUs, such as `cuda:0 (NVIDIA H200)+cuda:1 (NVIDIA H200)`.
pub(crate) fn joined_names(gpus: &[Arc<Gpu>]) -> String {
    gpus.iter().map(|gpu| gpu.info().to_string()).collect::<Vec<_>>().join("+")
}
