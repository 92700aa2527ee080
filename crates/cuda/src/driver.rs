//! The NVIDIA driver, found at run time.
//!
//! No toolkit is involved: `libcuda.so.1` comes with the driver. The library is opened once and never closed.

use std::{ffi::CStr, sync::OnceLock};

use crate::{
    driver_api::{Functions, NEEDED_VERSION, Status},
    error::{CudaError, Subject},
};

/// The driver, initialized.
pub(crate) struct Driver {
    functions: Functions,
    /// The newest CUDA that it runs, as 1000 × major + 10 × minor.
    version: u32,
}

impl std::ops::Deref for Driver {
    type Target = Functions;

    fn deref(&self) -> &Functions {
        &self.functions
    }
}

impl Driver {
    /// The driver of this machine: found and initialized at the first call, which decides for the life of the process.
    pub(crate) fn get() -> Result<&'static Self, CudaError> {
        static DRIVER: OnceLock<Result<Driver, CudaError>> = OnceLock::new();
        DRIVER.get_or_init(Self::load).as_ref().map_err(Clone::clone)
    }

    #[cfg(unix)]
    fn load() -> Result<Self, CudaError> {
        let library = open_library()?;
        // The library stays open: a static refers to its functions.
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        let version = version_of(library)?;
        if version < NEEDED_VERSION {
            return Err(CudaError::old_driver(version, None));
        }
        let functions = Functions::resolve(library).map_err(|symbol| {
            CudaError::old_driver(version, Some(format!("{} is missing from it", symbol.to_string_lossy())))
        })?;
        let driver = Self { functions, version };
        // SAFETY: the only flag that exists is 0.
        let status = unsafe { (driver.init)(0) };
        match status {
            0 => Ok(driver),
            status => Err(driver.error("cuInit", status, Subject::Driver)),
        }
    }

    #[cfg(not(unix))]
    fn load() -> Result<Self, CudaError> {
        Err(CudaError::NoDriver { reason: "GPUs are supported on Linux only".to_owned() })
    }

    /// The name of a status, such as `CUDA_ERROR_ILLEGAL_ADDRESS`.
    pub(crate) fn error_name(&self, status: Status) -> String {
        let mut name = std::ptr::null();
        // SAFETY: `name` is a place for a pointer.
        let known = unsafe { (self.get_error_name)(status, &raw mut name) } == 0;
        if !known || name.is_null() {
            return "an unknown error".to_owned();
        }
        // SAFETY: the driver returned a string that it never frees.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }

    /// The error for a status other than 0 that `call` returned.
    pub(crate) fn error(&self, call: &'static str, status: Status, subject: Subject<'_>) -> CudaError {
        CudaError::from_status(call, status, &self.error_name(status), subject, self.version)
    }

    /// `Ok` if the status is 0.
    pub(crate) fn check(&self, call: &'static str, status: Status, subject: Subject<'_>) -> Result<(), CudaError> {
        if status == 0 { Ok(()) } else { Err(self.error(call, status, subject)) }
    }
}

#[cfg(unix)]
fn open_library() -> Result<libloading::Library, CudaError> {
    let mut reason = String::new();
    for name in ["libcuda.so.1", "libcuda.so"] {
        // SAFETY: the driver's library may be opened at any time; nothing of ours runs in its initializers.
        match unsafe { libloading::Library::new(name) } {
            Ok(library) => return Ok(library),
            // The first name is the one that a driver installs: its error is the one to report.
            Err(error) if reason.is_empty() => reason = system_message(&error),
            Err(_) => {}
        }
    }
    Err(CudaError::NoDriver { reason })
}

/// The system's own message, which names the library.
#[cfg(unix)]
fn system_message(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// The version is read before anything else: an old driver may lack other functions.
#[cfg(unix)]
fn version_of(library: &libloading::Library) -> Result<u32, CudaError> {
    type GetVersion = unsafe extern "C" fn(*mut i32) -> Status;
    let not_a_driver = |reason: String| CudaError::NoDriver { reason };
    // SAFETY: the symbol has this signature in every driver.
    let function = unsafe { library.get::<GetVersion>(c"cuDriverGetVersion") }
        .map_err(|error| not_a_driver(format!("libcuda.so is not one: {}", system_message(&error))))?;
    let mut version = 0;
    // SAFETY: `version` is a place for the result; the call needs no initialization.
    let status = unsafe { function(&raw mut version) };
    if status != 0 {
        return Err(not_a_driver(format!("cuDriverGetVersion returned {status}")));
    }
    Ok(version.unsigned_abs())
}
