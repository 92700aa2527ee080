//! The driver's C interface: its types, the functions that are used, and values of its enumerations.
//!
//! The signatures are those of the driver's documentation.

use std::ffi::{CStr, c_char, c_void};

/// The driver's result: 0 is success.
pub(crate) type Status = i32;
/// An address in the memory of a device.
pub(crate) type DevicePointer = u64;
/// A device, by the number that the driver gives it.
pub(crate) type Device = i32;

/// The version of CUDA that the kernels in the binary are compiled with, as `cuDriverGetVersion` counts.
pub(crate) const NEEDED_VERSION: u32 = 13_000;

/// Pointers that only the driver follows. As numbers they can go from thread to thread.
macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name(usize);

        impl $name {
            pub(crate) const NULL: Self = Self(0);
        }
    )*};
}

handles! {
    /// The primary context of a device.
    Context;
    /// Kernels loaded into a context.
    Module;
    /// A kernel of a module.
    Function;
    /// A queue of copies and launches, executed in order.
    Stream;
    /// A point in a stream.
    Event;
}

/// The 128 bytes that describe a matrix to the copy engine of compute capability 9.0.
#[repr(C, align(128))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorMap(pub(crate) [u64; 16]);

macro_rules! functions {
    ($($field:ident = $symbol:literal($($type:ty),*);)*) => {
        /// The driver's functions.
        #[derive(Clone, Copy)]
        pub(crate) struct Functions {
            $(pub(crate) $field: unsafe extern "C" fn($($type),*) -> Status,)*
        }

        impl Functions {
            /// Resolves every function; the error is the name of a missing one.
            #[cfg(unix)]
            pub(crate) fn resolve(library: &libloading::Library) -> Result<Self, &'static CStr> {
                // SAFETY: each symbol has the signature that the driver's documentation gives it, and the library stays
                // open for the life of the process.
                Ok(unsafe { Self { $($field: *library.get($symbol).map_err(|_| $symbol)?,)* } })
            }
        }
    };
}

functions! {
    init = c"cuInit"(u32);
    get_error_name = c"cuGetErrorName"(Status, *mut *const c_char);
    device_get = c"cuDeviceGet"(*mut Device, i32);
    device_get_count = c"cuDeviceGetCount"(*mut i32);
    device_get_name = c"cuDeviceGetName"(*mut c_char, i32, Device);
    device_get_attribute = c"cuDeviceGetAttribute"(*mut i32, i32, Device);
    device_get_pci_bus_id = c"cuDeviceGetPCIBusId"(*mut c_char, i32, Device);
    device_total_mem = c"cuDeviceTotalMem_v2"(*mut usize, Device);
    primary_ctx_retain = c"cuDevicePrimaryCtxRetain"(*mut Context, Device);
    primary_ctx_release = c"cuDevicePrimaryCtxRelease_v2"(Device);
    primary_ctx_reset = c"cuDevicePrimaryCtxReset_v2"(Device);
    ctx_set_current = c"cuCtxSetCurrent"(Context);
    mem_get_info = c"cuMemGetInfo_v2"(*mut usize, *mut usize);
    mem_alloc = c"cuMemAlloc_v2"(*mut DevicePointer, usize);
    mem_free = c"cuMemFree_v2"(DevicePointer);
    mem_host_alloc = c"cuMemHostAlloc"(*mut *mut c_void, usize, u32);
    mem_free_host = c"cuMemFreeHost"(*mut c_void);
    memcpy_to_device = c"cuMemcpyHtoDAsync_v2"(DevicePointer, *const c_void, usize, Stream);
    memcpy_to_host = c"cuMemcpyDtoHAsync_v2"(*mut c_void, DevicePointer, usize, Stream);
    memset = c"cuMemsetD8Async"(DevicePointer, u8, usize, Stream);
    stream_create = c"cuStreamCreate"(*mut Stream, u32);
    stream_synchronize = c"cuStreamSynchronize"(Stream);
    stream_destroy = c"cuStreamDestroy_v2"(Stream);
    stream_wait_event = c"cuStreamWaitEvent"(Stream, Event, u32);
    event_create = c"cuEventCreate"(*mut Event, u32);
    event_record = c"cuEventRecord"(Event, Stream);
    event_synchronize = c"cuEventSynchronize"(Event);
    event_elapsed_time = c"cuEventElapsedTime_v2"(*mut f32, Event, Event);
    event_destroy = c"cuEventDestroy_v2"(Event);
    module_load_data = c"cuModuleLoadData"(*mut Module, *const c_void);
    module_get_function = c"cuModuleGetFunction"(*mut Function, Module, *const c_char);
    module_unload = c"cuModuleUnload"(Module);
    func_set_attribute = c"cuFuncSetAttribute"(Function, i32, i32);
    launch_kernel = c"cuLaunchKernel"(
        Function, u32, u32, u32, u32, u32, u32, u32, Stream, *mut *mut c_void, *mut *mut c_void
    );
    tensor_map_encode_tiled = c"cuTensorMapEncodeTiled"(
        *mut TensorMap, u32, u32, DevicePointer, *const u64, *const u64, *const u32, *const u32, u32, u32, u32, u32
    );
}

/// Values of the driver's enumerations.
pub(crate) mod constant {
    pub(crate) const ATTRIBUTE_MULTIPROCESSOR_COUNT: i32 = 16;
    pub(crate) const ATTRIBUTE_COMPUTE_MAJOR: i32 = 75;
    pub(crate) const ATTRIBUTE_COMPUTE_MINOR: i32 = 76;
    pub(crate) const STREAM_NON_BLOCKING: u32 = 1;
    pub(crate) const EVENT_BLOCKING_SYNC: u32 = 1;
    pub(crate) const EVENT_DISABLE_TIMING: u32 = 2;
    pub(crate) const HOST_ALLOC_PORTABLE: u32 = 1;
    pub(crate) const FUNCTION_MAX_DYNAMIC_SHARED: i32 = 8;
    pub(crate) const TENSOR_MAP_FLOAT16: u32 = 6;
    pub(crate) const TENSOR_MAP_BFLOAT16: u32 = 9;
    pub(crate) const TENSOR_MAP_SWIZZLE_128B: u32 = 3;
    pub(crate) const TENSOR_MAP_PROMOTE_256B: u32 = 3;
}
