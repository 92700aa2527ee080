//! Kernels by name.

use std::{
    collections::hash_map::Entry,
    ffi::{CString, c_void},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    driver::{Function, TensorMap, constant},
    error::{CudaError, Result},
    gpu::Gpu,
    launch::{FREE_SHARED_BYTES, Launch},
    memory::DeviceSlice,
};

/// How weights and activations are stored on a device. Sums are f32 for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NumberType {
    /// Brain floats: 8 bits of precision, the range of f32.
    Bf16,
    /// Half floats: 11 bits of precision, up to 65,504.
    F16,
    /// 32-bit floats, multiplied without tensor cores.
    F32,
}

impl NumberType {
    /// Bytes of one number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

impl fmt::Display for NumberType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        })
    }
}

/// The name of a kernel: its family, then the number type and a size where it is compiled for several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KernelName {
    pub(crate) family: &'static str,
    pub(crate) number: Option<NumberType>,
    pub(crate) size: Option<u32>,
}

impl KernelName {
    pub(crate) fn new(family: &'static str) -> Self {
        Self { family, number: None, size: None }
    }

    pub(crate) fn of(family: &'static str, number: NumberType) -> Self {
        Self { family, number: Some(number), size: None }
    }

    pub(crate) fn sized(family: &'static str, number: NumberType, size: u32) -> Self {
        Self { family, number: Some(number), size: Some(size) }
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.family)?;
        if let Some(number) = self.number {
            write!(f, "_{number}")?;
        }
        if let Some(size) = self.size {
            write!(f, "_{size}")?;
        }
        Ok(())
    }
}

/// A kernel that was looked up.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    function: Function,
    /// How much dynamic shared memory the driver lets it have.
    shared_bytes: AtomicU32,
}

/// A parameter as the kernel receives it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parameter {
    /// An address or a number: the kernel takes as many of the low bytes as its type has.
    Word(u64),
    /// A matrix for the copy engine.
    Map(TensorMap),
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

impl From<i32> for Parameter {
    fn from(number: i32) -> Self {
        Self::Word(u64::from(number as u32))
    }
}

impl From<u64> for Parameter {
    fn from(number: u64) -> Self {
        Self::Word(number)
    }
}

impl From<f32> for Parameter {
    fn from(number: f32) -> Self {
        Self::Word(u64::from(number.to_bits()))
    }
}

impl Kernel {
    /// The kernel of that name, looked up at its first use.
    pub(crate) fn find(gpu: &Gpu, name: KernelName) -> Result<Arc<Self>> {
        let mut kernels = gpu.kernels();
        let entry = match kernels.entry(name) {
            Entry::Occupied(entry) => return Ok(Arc::clone(entry.get())),
            Entry::Vacant(entry) => entry,
        };
        let kernel = Arc::new(Self::look_up(gpu, name.to_string())?);
        entry.insert(Arc::clone(&kernel));
        Ok(kernel)
    }

    fn look_up(gpu: &Gpu, name: String) -> Result<Self> {
        const NOT_FOUND: i32 = 500;
        let missing = || CudaError::misuse(&name, "the program's binary has no such kernel");
        let symbol = CString::new(name.as_bytes()).map_err(|_| missing())?;
        let mut function = Function::NULL;
        // SAFETY: the module is loaded, the name ends with a zero, and a place for the result is given.
        let status = unsafe { (gpu.driver().module_get_function)(&raw mut function, gpu.module(), symbol.as_ptr()) };
        if status == NOT_FOUND {
            return Err(missing());
        }
        gpu.check("cuModuleGetFunction", status)?;
        Ok(Self { name, function, shared_bytes: AtomicU32::new(FREE_SHARED_BYTES) })
    }

    /// Queues a launch.
    ///
    /// # Safety
    ///
    /// The parameters are those of the kernel's signature, in number, order and size; what they point to is on this
    /// device and as large as the kernel's sizes say. The context is current.
    pub(crate) unsafe fn launch(&self, gpu: &Gpu, launch: Launch, parameters: &mut [Parameter]) -> Result<()> {
        let Launch { grid, block, shared_bytes } = launch;
        if shared_bytes > self.shared_bytes.load(Ordering::Relaxed) {
            // SAFETY: the function is of a loaded module.
            let status = unsafe {
                (gpu.driver().func_set_attribute)(
                    self.function,
                    constant::FUNCTION_MAX_DYNAMIC_SHARED,
                    shared_bytes as i32,
                )
            };
            gpu.check("cuFuncSetAttribute", status)?;
            self.shared_bytes.store(shared_bytes, Ordering::Relaxed);
        }
        let mut pointers: Vec<*mut c_void> = parameters
            .iter_mut()
            .map(|parameter| match parameter {
                Parameter::Word(word) => (&raw mut *word).cast(),
                Parameter::Map(map) => (&raw mut *map).cast(),
            })
            .collect();
        // SAFETY: by this function's contract. The driver copies the parameters before it returns; numbers lie in the
        // low bytes of their words, because every host of a GPU is little-endian.
        let status = unsafe {
            (gpu.driver().launch_kernel)(
                self.function,
                grid[0],
                grid[1],
                grid[2],
                block,
                1,
                1,
                shared_bytes,
                gpu.stream(),
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        gpu.check("cuLaunchKernel", status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_type_and_size() {
        assert_eq!(KernelName::new("pool").to_string(), "pool");
        assert_eq!(KernelName::of("gemm", NumberType::Bf16).to_string(), "gemm_bf16");
        assert_eq!(KernelName::sized("add_norm", NumberType::F16, 20).to_string(), "add_norm_f16_20");
    }
}
