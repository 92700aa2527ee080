//! A fake NVIDIA driver for tests: it runs the kernels of polylance-cuda on the CPU, and fails where a test requests
//! it.
//!
//! The driver is a shared library, `libcuda.so.1`, made from `crates/cuda/kernels` when this crate is built. A test
//! loads it with [`FakeDriver::load`] before anything opens CUDA; the code under test then finds it under its name, as
//! it would find the real one. A test of a whole process gives it [`folder`] as `LD_LIBRARY_PATH`, and configures it by
//! environment variables:
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `FAKE_CUDA_DEVICES` | number of devices | 1 |
//! | `FAKE_CUDA_MEMORY` | bytes of each | 4 GiB |
//! | `FAKE_CUDA_COMPUTE` | compute capability | 8.0 |
//! | `FAKE_CUDA_VERSION` | the version of CUDA that the driver runs | 13000 |
//! | `FAKE_CUDA_PROCESSORS` | multiprocessors of each device | 4 |
//! | `FAKE_CUDA_ORDER` | the order of a block's threads: `forward`, `reverse` or `shuffled` | `forward` |
//! | `FAKE_CUDA_FAIL` | failures, `call:nth:code` separated by commas, as of [`FakeDriver::fail`] | none |
//!
//! Copies and launches run only when they are waited for. Streams are ordered by their waits alone: a stream runs as far as
//! another one waits for it. [`FakeDriver::set_copies`] makes copies to the device as early as the order allows instead,
//! so a missing wait shows in one of the two. New memory is poisoned with `0xff` bytes, so
//! floats that were not written are NaN. An address outside of live memory, and a write just outside an allocation, make
//! the device fail with code 700.

#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "the fake driver is a C library")]

mod log;

use std::{
    ffi::{CStr, CString, c_char, c_int},
    path::Path,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

pub use log::Entry;

/// The folder that holds the fake `libcuda.so.1`.
pub fn folder() -> &'static Path {
    Path::new(concat!(env!("OUT_DIR"), "/fake"))
}

/// The fake driver, loaded into this process.
#[derive(Debug)]
pub struct FakeDriver {
    set: unsafe extern "C" fn(*const c_char, *const c_char),
    fail: unsafe extern "C" fn(*const c_char, c_int, c_int),
    release: unsafe extern "C" fn(),
    clear: unsafe extern "C" fn(),
    set_memory: unsafe extern "C" fn(u64),
    set_early_copies: unsafe extern "C" fn(c_int),
    memory_in_use: unsafe extern "C" fn(c_int) -> u64,
    pinned_in_use: unsafe extern "C" fn(c_int) -> u64,
    log_take: unsafe extern "C" fn() -> *mut c_char,
    log_free: unsafe extern "C" fn(*mut c_char),
}

/// When copies to the device run, within the order of the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// When something waits for them.
    Late,
    /// As soon as nothing before them in their stream is left to do.
    Early,
}

/// Exclusive use of the driver by one test.
#[derive(Debug)]
pub struct Session {
    driver: &'static FakeDriver,
    _turn: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Session {
    type Target = FakeDriver;

    fn deref(&self) -> &FakeDriver {
        self.driver
    }
}

impl FakeDriver {
    /// Loads the driver, once for the process. Code that looks for `libcuda.so.1` afterwards finds it.
    ///
    /// # Panics
    ///
    /// The library is missing or damaged.
    pub fn load() -> &'static Self {
        static DRIVER: OnceLock<FakeDriver> = OnceLock::new();
        DRIVER.get_or_init(Self::open)
    }

    /// Loads the driver with keys of the configuration, named like the environment variables. They apply if nothing
    /// in this process has called the driver yet.
    ///
    /// # Panics
    ///
    /// The library is missing or damaged, or a key or value contains a zero.
    pub fn load_with(settings: &[(&str, &str)]) -> &'static Self {
        let driver = Self::load();
        for (key, value) in settings {
            let (key, value) = (c_string(key), c_string(value));
            // SAFETY: both are strings that end with a zero; the driver copies them.
            unsafe { (driver.set)(key.as_ptr(), value.as_ptr()) };
        }
        driver
    }

    /// Waits until no other test of this process uses the driver, and starts without failures, with an empty log, the
    /// configured memory and late copies.
    pub fn session() -> Session {
        Self::session_with(&[])
    }

    /// As [`FakeDriver::session`], with the configuration of [`FakeDriver::load_with`].
    pub fn session_with(settings: &[(&str, &str)]) -> Session {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let driver = Self::load_with(settings);
        // SAFETY: takes nothing and returns nothing.
        unsafe { (driver.clear)() };
        Session { driver, _turn: turn }
    }

    /// The `nth` call of a driver function from now on, 1 being the next, returns `code`. The name is that of the
    /// documentation, without a version: `cuMemAlloc`. Code -1 hangs until [`FakeDriver::release`], then the call
    /// succeeds. A code that breaks a context, such as 700, breaks it until the device is reset.
    ///
    /// # Panics
    ///
    /// The name contains a zero.
    pub fn fail(&self, call: &str, nth: u32, code: i32) {
        let call = c_string(call);
        // SAFETY: a string that ends with a zero, which the driver copies, and two numbers.
        unsafe { (self.fail)(call.as_ptr(), nth as c_int, code) };
    }

    /// Resumes calls that hang.
    pub fn release(&self) {
        // SAFETY: takes nothing and returns nothing.
        unsafe { (self.release)() };
    }

    /// Sets the memory of every device for the rest of the session. What is allocated stays.
    pub fn set_memory(&self, bytes: u64) {
        // SAFETY: takes a number.
        unsafe { (self.set_memory)(bytes) };
    }

    /// Sets when copies to the device run, for the rest of the session.
    pub fn set_copies(&self, copies: Copies) {
        // SAFETY: takes a number.
        unsafe { (self.set_early_copies)(c_int::from(copies == Copies::Early)) };
    }

    /// Bytes allocated on a device.
    pub fn memory_in_use(&self, device: u32) -> u64 {
        // SAFETY: takes and returns a number.
        unsafe { (self.memory_in_use)(device as c_int) }
    }

    /// Bytes of page-locked host memory allocated through a device.
    pub fn pinned_in_use(&self, device: u32) -> u64 {
        // SAFETY: takes and returns a number.
        unsafe { (self.pinned_in_use)(device as c_int) }
    }

    /// The calls since the last time, in order.
    pub fn take_log(&self) -> Vec<Entry> {
        // SAFETY: returns a string that ends with a zero.
        let text = unsafe { (self.log_take)() };
        // SAFETY: as above; it is freed below, after the copy.
        let log = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        // SAFETY: the string came from `log_take` and is freed once.
        unsafe { (self.log_free)(text) };
        log.lines().filter_map(Entry::parse).collect()
    }

    fn open() -> Self {
        let path = folder().join("libcuda.so.1");
        // SAFETY: the library of this crate; its initializers register the kernels.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
        let library = library.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // It stays open: code under test keeps its functions.
        let library: &'static Library = Box::leak(Box::new(library));
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the function has the signature of the field that it is stored in.
                *unsafe { library.get($name) }.unwrap_or_else(|error| panic!("{error}"))
            };
        }
        Self {
            set: function!(c"fake_set"),
            fail: function!(c"fake_fail"),
            release: function!(c"fake_release"),
            clear: function!(c"fake_clear"),
            set_memory: function!(c"fake_set_memory"),
            set_early_copies: function!(c"fake_set_early_copies"),
            memory_in_use: function!(c"fake_memory_in_use"),
            pinned_in_use: function!(c"fake_pinned_in_use"),
            log_take: function!(c"fake_log_take"),
            log_free: function!(c"fake_log_free"),
        }
    }
}

fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}
