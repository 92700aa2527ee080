//! The errors of GPUs, by what a caller can do about them.

use std::fmt;

use crate::driver_api::{NEEDED_VERSION, Status};

/// A result whose error is a [`CudaError`].
pub type Result<T> = std::result::Result<T, CudaError>;

/// An error of a GPU. Every variant can be cloned, because a device that is lost returns its first error for
/// every later call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// There is no usable driver: compute on the CPU, or install one.
    #[error("no NVIDIA driver: {reason}; install driver 580 or newer to use a GPU")]
    NoDriver {
        /// What the system or the driver reported.
        reason: String,
    },
    /// The driver is older than the kernels: install a newer one.
    #[error(
        "the NVIDIA driver is too old: it runs CUDA {}, this program needs CUDA {}{}; install driver 580 or newer",
        CudaVersion(*found), CudaVersion(*needed), detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
    )]
    OldDriver {
        /// The version of CUDA that the driver runs: 1000 × major + 10 × minor.
        found: u32,
        /// The version that is needed, counted the same way.
        needed: u32,
        /// The call that showed it, where it was not the version.
        detail: Option<String>,
    },
    /// There is no device of that number: choose another.
    #[error("there is no GPU {ordinal}: {}", Devices(*count))]
    NoDevice {
        /// The requested number.
        ordinal: u32,
        /// Number of devices.
        count: u32,
    },
    /// The device is too old for the kernels: use another.
    #[error(
        "{device} has compute capability {}.{}, the kernels need 8.0 (Ampere) or newer: use another GPU or the CPU",
        compute.0, compute.1
    )]
    Unsupported {
        /// The device's number and name.
        device: String,
        /// Its compute capability.
        compute: (u32, u32),
    },
    /// Memory ran out: allocate less, or wait for other programs.
    #[error("{}", OutOfMemory { device, call, needed: *needed, free: *free })]
    OutOfMemory {
        /// The device's number and name.
        device: String,
        /// The driver function that returned code 2.
        call: &'static str,
        /// The size of the allocation in bytes, where it is known.
        needed: Option<u64>,
        /// The bytes that were free at that moment, where they are known.
        free: Option<u64>,
    },
    /// The device failed. Nothing on it can be used any more: drop everything that was made from it, then
    /// [`Gpu::reset`](crate::Gpu::reset) and open it again.
    #[error("{device} is lost: {call} returned {code} ({name}); its memory is gone, reset the device and load again")]
    Lost {
        /// The device's number and name.
        device: String,
        /// The driver function that returned the error.
        call: &'static str,
        /// The driver's code.
        code: i32,
        /// The driver's name of the code.
        name: String,
    },
    /// The device cannot be reset, because something made from it is still in use: drop that first.
    #[error("GPU {ordinal} cannot be reset: it is still open {open} times; drop its buffers and handles first")]
    InUse {
        /// The device's number.
        ordinal: u32,
        /// How many [`Gpu`](crate::Gpu)s of it are alive.
        open: usize,
    },
    /// A kernel or a copy was given operands that do not fit: an error of the program. Nothing was launched.
    #[error("{operation}: {reason}")]
    Misuse {
        /// The kernel or the copy.
        operation: String,
        /// What does not fit.
        reason: String,
    },
}

/// The subject of a driver call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// The driver itself, before any device.
    Driver,
    /// A device.
    Device(Label<'a>),
}

/// A device in messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label<'a> {
    pub(crate) ordinal: u32,
    pub(crate) count: u32,
    pub(crate) name: &'a str,
    pub(crate) compute: (u32, u32),
}

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            "" => write!(f, "GPU {}", self.ordinal),
            name => write!(f, "GPU {} ({name})", self.ordinal),
        }
    }
}

const OUT_OF_MEMORY: Status = 2;
const CALL_REQUIRES_NEWER_DRIVER: Status = 36;
const NO_DEVICE: Status = 100;
const INVALID_DEVICE: Status = 101;
const NO_BINARY_FOR_GPU: Status = 209;
const UNSUPPORTED_PTX_VERSION: Status = 222;

impl CudaError {
    /// The error for a status other than 0; `driver_version` is what the driver runs.
    pub(crate) fn from_status(
        call: &'static str,
        code: Status,
        name: &str,
        subject: Subject<'_>,
        driver_version: u32,
    ) -> Self {
        let returned = || format!("{call} returned {code} ({name})");
        let label = match subject {
            Subject::Driver if code == NO_DEVICE => return Self::NoDevice { ordinal: 0, count: 0 },
            Subject::Driver => return Self::NoDriver { reason: returned() },
            Subject::Device(label) => label,
        };
        match code {
            OUT_OF_MEMORY => Self::OutOfMemory { device: label.to_string(), call, needed: None, free: None },
            NO_DEVICE | INVALID_DEVICE => Self::NoDevice { ordinal: label.ordinal, count: label.count },
            NO_BINARY_FOR_GPU => Self::Unsupported { device: label.to_string(), compute: label.compute },
            UNSUPPORTED_PTX_VERSION | CALL_REQUIRES_NEWER_DRIVER => Self::old_driver(driver_version, Some(returned())),
            _ => Self::Lost { device: label.to_string(), call, code, name: name.to_owned() },
        }
    }

    pub(crate) fn old_driver(found: u32, detail: Option<String>) -> Self {
        Self::OldDriver { found, needed: NEEDED_VERSION, detail }
    }

    pub(crate) fn misuse(operation: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self::Misuse { operation: operation.to_string(), reason: reason.to_string() }
    }

    /// Whether the device is lost, so that only [`Gpu::reset`](crate::Gpu::reset) can bring it back.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Whether memory ran out, so that a smaller allocation may succeed.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. })
    }
}

/// `13.0` for 13000.
struct CudaVersion(u32);

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

struct Devices(u32);

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("the driver finds none (CUDA_VISIBLE_DEVICES hides those that it does not name)"),
            1 => f.write_str("the driver finds one, GPU 0"),
            count => write!(f, "the driver finds {count}, GPU 0 to GPU {}", count - 1),
        }
    }
}

struct OutOfMemory<'a> {
    device: &'a str,
    call: &'static str,
    needed: Option<u64>,
    free: Option<u64>,
}

impl fmt::Display for OutOfMemory<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.call.starts_with("cuMemHost");
        if host {
            write!(f, "out of page-locked host memory for {}: {} returned 2", self.device, self.call)?;
        } else {
            write!(f, "{} is out of memory: {} returned 2", self.device, self.call)?;
        }
        if let Some(needed) = self.needed {
            write!(f, ", {} needed", Bytes(needed))?;
        }
        if let Some(free) = self.free {
            write!(f, ", {} free", Bytes(free))?;
        }
        f.write_str(if host {
            "; free host memory"
        } else {
            "; use smaller batches, or end other programs on the device"
        })
    }
}

/// A size in messages; small ones in bytes.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: f64 = (1 << 20) as f64;
        match self.0 as f64 / MIB {
            mib if mib >= 1024.0 => write!(f, "{:.2} GiB", mib / 1024.0),
            mib if mib >= 1.0 => write!(f, "{mib:.1} MiB"),
            _ => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: Label<'static> = Label { ordinal: 1, count: 2, name: "NVIDIA H100", compute: (7, 5) };

    fn on_device(code: Status, name: &str) -> CudaError {
        CudaError::from_status("cuModuleLoadData", code, name, Subject::Device(LABEL), 13_000)
    }

    #[test]
    fn status_codes_map_to_variants() {
        let device = || "GPU 1 (NVIDIA H100)".to_owned();
        let lost = |code, name: &str| CudaError::Lost {
            device: device(),
            call: "cuModuleLoadData",
            code,
            name: name.to_owned(),
        };
        let cases = [
            (
                2,
                "CUDA_ERROR_OUT_OF_MEMORY",
                CudaError::OutOfMemory { device: device(), call: "cuModuleLoadData", needed: None, free: None },
            ),
            (100, "CUDA_ERROR_NO_DEVICE", CudaError::NoDevice { ordinal: 1, count: 2 }),
            (101, "CUDA_ERROR_INVALID_DEVICE", CudaError::NoDevice { ordinal: 1, count: 2 }),
            (209, "CUDA_ERROR_NO_BINARY_FOR_GPU", CudaError::Unsupported { device: device(), compute: (7, 5) }),
            (
                222,
                "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
                CudaError::OldDriver {
                    found: 13_000,
                    needed: 13_000,
                    detail: Some("cuModuleLoadData returned 222 (CUDA_ERROR_UNSUPPORTED_PTX_VERSION)".to_owned()),
                },
            ),
            (700, "CUDA_ERROR_ILLEGAL_ADDRESS", lost(700, "CUDA_ERROR_ILLEGAL_ADDRESS")),
            (719, "CUDA_ERROR_LAUNCH_FAILED", lost(719, "CUDA_ERROR_LAUNCH_FAILED")),
            (999, "CUDA_ERROR_UNKNOWN", lost(999, "CUDA_ERROR_UNKNOWN")),
            (1, "CUDA_ERROR_INVALID_VALUE", lost(1, "CUDA_ERROR_INVALID_VALUE")),
        ];
        for (code, name, expected) in cases {
            assert_eq!(on_device(code, name), expected, "code {code}");
        }
    }

    #[test]
    fn initialization_errors_without_device_or_driver() {
        let init = |code, name| CudaError::from_status("cuInit", code, name, Subject::Driver, 13_000);
        assert_eq!(init(100, "CUDA_ERROR_NO_DEVICE"), CudaError::NoDevice { ordinal: 0, count: 0 });
        assert_eq!(
            init(999, "CUDA_ERROR_UNKNOWN"),
            CudaError::NoDriver { reason: "cuInit returned 999 (CUDA_ERROR_UNKNOWN)".to_owned() }
        );
    }

    #[test]
    fn messages_name_call_code_device_and_remedy() {
        let cases = [
            (
                CudaError::NoDriver { reason: "libcuda.so.1: cannot open shared object file".to_owned() },
                "no NVIDIA driver: libcuda.so.1: cannot open shared object file; install driver 580 or newer to use a GPU",
            ),
            (
                CudaError::old_driver(12_040, None),
                "the NVIDIA driver is too old: it runs CUDA 12.4, this program needs CUDA 13.0; install driver 580 or newer",
            ),
            (CudaError::NoDevice { ordinal: 3, count: 2 }, "there is no GPU 3: the driver finds 2, GPU 0 to GPU 1"),
            (
                on_device(209, ""),
                "GPU 1 (NVIDIA H100) has compute capability 7.5, the kernels need 8.0 (Ampere) or newer: \
                 use another GPU or the CPU",
            ),
            (
                CudaError::OutOfMemory {
                    device: LABEL.to_string(),
                    call: "cuMemAlloc",
                    needed: Some(7 << 30),
                    free: Some(3 << 20),
                },
                "GPU 1 (NVIDIA H100) is out of memory: cuMemAlloc returned 2, 7.00 GiB needed, 3.0 MiB free; \
                 use smaller batches, or end other programs on the device",
            ),
            (
                CudaError::OutOfMemory {
                    device: LABEL.to_string(),
                    call: "cuMemHostAlloc",
                    needed: Some(100),
                    free: None,
                },
                "out of page-locked host memory for GPU 1 (NVIDIA H100): cuMemHostAlloc returned 2, 100 bytes needed; \
                 free host memory",
            ),
            (
                on_device(700, "CUDA_ERROR_ILLEGAL_ADDRESS"),
                "GPU 1 (NVIDIA H100) is lost: cuModuleLoadData returned 700 (CUDA_ERROR_ILLEGAL_ADDRESS); \
                 its memory is gone, reset the device and load again",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(error.to_string(), expected);
        }
    }
}
