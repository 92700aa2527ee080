//! Kernels and matrices on a device: looked up or described at their first use, and launched.

use std::{
    collections::hash_map::Entry,
    ffi::{CString, c_void},
    sync::{Arc, atomic::Ordering},
};

use crate::{
    driver_api::{Function, TensorMap, constant},
    error::{CudaError, Result},
    gpu::Gpu,
    kernel::{Kernel, KernelName, Parameter},
    launch::Launch,
    tensor_map::Matrix,
};

impl Gpu {
    /// The kernel of that name.
    pub(crate) fn kernel(&self, name: KernelName) -> Result<Arc<Kernel>> {
        let mut kernels = self.kernels();
        let entry = match kernels.entry(name) {
            Entry::Occupied(entry) => return Ok(Arc::clone(entry.get())),
            Entry::Vacant(entry) => entry,
        };
        let kernel = Arc::new(self.look_up(name.to_string())?);
        entry.insert(Arc::clone(&kernel));
        Ok(kernel)
    }

    fn look_up(&self, name: String) -> Result<Kernel> {
        const NOT_FOUND: i32 = 500;
        let missing = || CudaError::misuse(&name, "the program's binary has no such kernel");
        let symbol = CString::new(name.as_bytes()).map_err(|_| missing())?;
        let mut function = Function::NULL;
        // SAFETY: the module is loaded, the name ends with a zero, and a place for the result is given.
        let status = unsafe { (self.driver().module_get_function)(&raw mut function, self.module(), symbol.as_ptr()) };
        if status == NOT_FOUND {
            return Err(missing());
        }
        self.check("cuModuleGetFunction", status)?;
        Ok(Kernel::new(name, function))
    }

    /// Queues a launch.
    ///
    /// # Safety
    ///
    /// The parameters are those of the kernel's signature, in number, order and size; the memory that they point to is
    /// on this device and as large as the kernel's sizes require. The context is current.
    pub(crate) unsafe fn launch(&self, kernel: &Kernel, launch: Launch, parameters: &mut [Parameter]) -> Result<()> {
        let Launch { grid, block, shared_bytes } = launch;
        if shared_bytes > kernel.shared_bytes.load(Ordering::Relaxed) {
            // SAFETY: the function is of a loaded module.
            let status = unsafe {
                (self.driver().func_set_attribute)(
                    kernel.function,
                    constant::FUNCTION_MAX_DYNAMIC_SHARED,
                    shared_bytes as i32,
                )
            };
            self.check("cuFuncSetAttribute", status)?;
            kernel.shared_bytes.store(shared_bytes, Ordering::Relaxed);
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
            (self.driver().launch_kernel)(
                kernel.function,
                grid[0],
                grid[1],
                grid[2],
                block,
                1,
                1,
                shared_bytes,
                self.stream(),
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        self.check("cuLaunchKernel", status)
    }

    /// The description of a matrix.
    pub(crate) fn tensor_map(&self, matrix: Matrix) -> Result<TensorMap> {
        let mut maps = self.tensor_maps();
        if let Some(map) = maps.get(&matrix) {
            return Ok(map);
        }
        let (map, status) = matrix.describe(self.driver())?;
        self.check("cuTensorMapEncodeTiled", status)?;
        maps.insert(matrix, map);
        Ok(map)
    }
}
