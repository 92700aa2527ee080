//! The guarantees of the fake driver beyond a real one: it is lazy, and it detects misuse.

#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "the driver is called as the C library that it is")]

use std::ffi::{CString, c_char, c_void};

use libloading::os::unix::Library;
use polylance_fake_cuda::{Copies, Entry, FakeDriver, Session, folder};

const ILLEGAL_ADDRESS: i32 = 700;
const NOT_FOUND: i32 = 500;

type Handle = *mut c_void;

/// The driver with a context and a stream.
struct Driver {
    session: Session,
    library: Library,
    stream: Handle,
}

macro_rules! call {
    ($driver:expr, $name:literal($($argument:expr => $type:ty),*)) => {{
        // SAFETY: the function has these parameters, and every pointer leads to memory that the test owns.
        unsafe {
            let function = $driver.library.get::<unsafe extern "C" fn($($type),*) -> i32>($name).unwrap();
            function($($argument),*)
        }
    }};
}

impl Driver {
    fn new() -> Self {
        let session = FakeDriver::session();
        // SAFETY: the library is loaded already.
        let library = unsafe { Library::new(folder().join("libcuda.so.1")) }.unwrap();
        let mut driver = Self { session, library, stream: std::ptr::null_mut() };
        let mut context: Handle = std::ptr::null_mut();
        assert_eq!(call!(driver, c"cuInit"(0 => u32)), 0);
        assert_eq!(call!(driver, c"cuDevicePrimaryCtxRetain"(&raw mut context => *mut Handle, 0 => i32)), 0);
        assert_eq!(call!(driver, c"cuCtxSetCurrent"(context => Handle)), 0);
        driver.stream = driver.new_stream();
        driver.session.take_log();
        driver
    }

    fn new_stream(&self) -> Handle {
        let mut stream: Handle = std::ptr::null_mut();
        assert_eq!(call!(self, c"cuStreamCreate"(&raw mut stream => *mut Handle, 1 => u32)), 0);
        stream
    }

    fn new_event(&self) -> Handle {
        let mut event: Handle = std::ptr::null_mut();
        assert_eq!(call!(self, c"cuEventCreate"(&raw mut event => *mut Handle, 2 => u32)), 0);
        event
    }

    /// What is queued in `stream` from now on runs after what is queued in `before` until now.
    fn order(&self, event: Handle, before: Handle, stream: Handle) {
        assert_eq!(call!(self, c"cuEventRecord"(event => Handle, before => Handle)), 0);
        assert_eq!(call!(self, c"cuStreamWaitEvent"(stream => Handle, event => Handle, 0 => u32)), 0);
    }

    fn upload(&self, to: u64, from: *const f32, bytes: usize, stream: Handle) {
        let status = call!(
            self,
            c"cuMemcpyHtoDAsync_v2"(to => u64, from => *const f32, bytes => usize, stream => Handle)
        );
        assert_eq!(status, 0);
    }

    fn allocate(&self, bytes: usize) -> u64 {
        let mut address = 0;
        assert_eq!(call!(self, c"cuMemAlloc_v2"(&raw mut address => *mut u64, bytes => usize)), 0);
        address
    }

    fn free(&self, address: u64) -> i32 {
        call!(self, c"cuMemFree_v2"(address => u64))
    }

    /// Page-locked numbers.
    fn pinned(&self, count: usize) -> *mut f32 {
        let mut address: Handle = std::ptr::null_mut();
        let bytes = count * 4;
        assert_eq!(call!(self, c"cuMemHostAlloc"(&raw mut address => *mut Handle, bytes => usize, 0 => u32)), 0);
        address.cast()
    }

    fn free_pinned(&self, address: *mut f32) -> i32 {
        call!(self, c"cuMemFreeHost"(address => *mut f32))
    }

    fn download(&self, to: *mut f32, from: u64, bytes: usize) -> i32 {
        let stream = self.stream;
        call!(self, c"cuMemcpyDtoHAsync_v2"(to => *mut f32, from => u64, bytes => usize, stream => Handle))
    }

    fn synchronize(&self) -> i32 {
        call!(self, c"cuStreamSynchronize"(self.stream => Handle))
    }

    fn module(&self) -> Handle {
        let mut module: Handle = std::ptr::null_mut();
        let image = [0u8; 4];
        assert_eq!(call!(self, c"cuModuleLoadData"(&raw mut module => *mut Handle, image.as_ptr() => *const u8)), 0);
        module
    }

    /// Fills `count` numbers with 3.
    fn fill(&self, mut out: u64, mut count: u64) {
        let (mut seed, mut first, mut offset, mut scale) = (0u64, 0u64, 3.0f32, 0.0f32);
        let mut function: Handle = std::ptr::null_mut();
        let name = CString::new("fill_f32").unwrap();
        let module = self.module();
        let status = call!(
            self,
            c"cuModuleGetFunction"(&raw mut function => *mut Handle, module => Handle, name.as_ptr() => *const c_char)
        );
        assert_eq!(status, 0);
        let mut parameters: [Handle; 6] = [
            (&raw mut out).cast(),
            (&raw mut seed).cast(),
            (&raw mut first).cast(),
            (&raw mut count).cast(),
            (&raw mut offset).cast(),
            (&raw mut scale).cast(),
        ];
        let none: *mut Handle = std::ptr::null_mut();
        let status = call!(
            self,
            c"cuLaunchKernel"(
                function => Handle, 1 => u32, 1 => u32, 1 => u32, 32 => u32, 1 => u32, 1 => u32, 0 => u32,
                self.stream => Handle, parameters.as_mut_ptr() => *mut Handle, none => *mut Handle
            )
        );
        assert_eq!(status, 0);
    }

    fn misuses(&self) -> Vec<String> {
        let what = |entry| match entry {
            Entry::Misuse { what, .. } => Some(what),
            _ => None,
        };
        self.session.take_log().into_iter().filter_map(what).collect()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        assert_eq!(call!(self, c"cuDevicePrimaryCtxReset_v2"(0 => i32)), 0);
        assert_eq!(call!(self, c"cuDevicePrimaryCtxRelease_v2"(0 => i32)), 0);
    }
}

#[test]
fn work_runs_when_it_is_waited_for() {
    let driver = Driver::new();
    let (device, host) = (driver.allocate(16), driver.pinned(4));
    driver.fill(device, 4);
    assert_eq!(driver.download(host, device, 16), 0);
    // SAFETY: 4 numbers were allocated.
    let now = || unsafe { std::slice::from_raw_parts(host, 4) }.to_vec();
    assert!(now().iter().all(|number| number.is_nan()), "{:?}", now());
    assert_eq!(driver.synchronize(), 0);
    assert_eq!(now(), [3.0; 4]);
    assert_eq!([driver.free(device), driver.free_pinned(host)], [0, 0]);
    assert_eq!(driver.misuses(), Vec::<String>::new());
}

/// A kernel fills 4 numbers with 3, then a second stream copies ones over them; the result is what a download finds that
/// is queued after `ordered`: whether the copy waits for the kernel, and whether the download waits for the copy.
fn filled_or_copied(copies: Copies, copy_waits: bool, download_waits: bool) -> f32 {
    let driver = Driver::new();
    driver.session.set_copies(copies);
    let (device, host, source) = (driver.allocate(16), driver.pinned(4), driver.pinned(4));
    // SAFETY: 4 numbers were allocated.
    unsafe { std::slice::from_raw_parts_mut(source, 4) }.fill(1.0);
    // Both waits use one event: a wait is for the record before it.
    let (second, event) = (driver.new_stream(), driver.new_event());
    driver.fill(device, 4);
    if copy_waits {
        driver.order(event, driver.stream, second);
    }
    driver.upload(device, source, 16, second);
    if download_waits {
        driver.order(event, second, driver.stream);
    }
    assert_eq!(driver.download(host, device, 16), 0);
    assert_eq!(driver.synchronize(), 0);
    // SAFETY: as above.
    let found = unsafe { std::slice::from_raw_parts(host, 4) }[0];
    assert_eq!(driver.misuses(), Vec::<String>::new());
    found
}

#[test]
fn missing_wait_between_streams_shows() {
    for copies in [Copies::Late, Copies::Early] {
        assert_eq!(filled_or_copied(copies, true, true), 1.0, "{copies:?}");
    }
    assert_eq!(filled_or_copied(Copies::Late, true, false), 3.0);
    assert_eq!(filled_or_copied(Copies::Early, false, true), 3.0);
}

#[test]
fn memory_of_a_session_is_settable() {
    let driver = Driver::new();
    let available = |bytes: u64| {
        driver.session.set_memory(bytes);
        let (mut free, mut total) = (0usize, 0usize);
        assert_eq!(call!(driver, c"cuMemGetInfo_v2"(&raw mut free => *mut usize, &raw mut total => *mut usize)), 0);
        (free, total)
    };
    let device = driver.allocate(64);
    assert_eq!([available(100), available(50)], [(36, 100), (0, 50)]);
    let mut other = 0u64;
    assert_eq!(call!(driver, c"cuMemAlloc_v2"(&raw mut other => *mut u64, 1 => usize)), 2);
    assert_eq!(driver.free(device), 0);
}

#[test]
fn write_beyond_an_allocation_breaks_the_device() {
    let driver = Driver::new();
    let device = driver.allocate(16);
    driver.fill(device, 5);
    assert_eq!(driver.synchronize(), ILLEGAL_ADDRESS);
    assert_eq!(driver.misuses(), ["fill_f32 wrote beside 16 bytes"]);
    // The error persists.
    assert_eq!(driver.free(device), ILLEGAL_ADDRESS);
}

#[test]
fn unallocated_addresses_break_the_device() {
    let cases: [fn(&Driver, u64, *mut f32) -> i32; 6] = [
        |driver, device, host| driver.download(host, device, 20),
        |driver, device, host| driver.download(host, device + 4, 16),
        |driver, device, _| driver.download([0.0f32; 4].as_mut_ptr(), device, 16),
        |driver, device, _| driver.free(device + 4),
        |driver, _, host| driver.free_pinned(host.wrapping_add(1)),
        |driver, device, _| {
            assert_eq!(driver.free(device), 0);
            driver.free(device)
        },
    ];
    for (case, use_wrongly) in cases.into_iter().enumerate() {
        let driver = Driver::new();
        let (device, host) = (driver.allocate(16), driver.pinned(4));
        assert_eq!(use_wrongly(&driver, device, host), ILLEGAL_ADDRESS, "case {case}");
        assert_eq!(driver.synchronize(), ILLEGAL_ADDRESS, "case {case}");
        assert_eq!(driver.misuses().len(), 1, "case {case}");
    }
}

#[test]
fn host_memory_in_use_by_a_copy_cannot_be_freed() {
    let driver = Driver::new();
    let (device, host) = (driver.allocate(16), driver.pinned(4));
    assert_eq!(driver.download(host, device, 16), 0);
    assert_eq!(driver.free_pinned(host), ILLEGAL_ADDRESS);
    assert_eq!(driver.misuses(), ["cuMemFreeHost while a copy uses the memory"]);
}

#[test]
fn failures_happen_at_the_chosen_call() {
    let driver = Driver::new();
    driver.session.fail("cuStreamSynchronize", 2, 999);
    assert_eq!([driver.synchronize(), driver.synchronize()], [0, 999]);
    // It breaks the context until the reset.
    assert_eq!(driver.synchronize(), 999);
    drop(driver);
    let driver = Driver::new();
    assert_eq!(driver.synchronize(), 0);
}

#[test]
fn unknown_kernels_are_not_found() {
    let driver = Driver::new();
    let module = driver.module();
    for name in ["no_such_kernel", "gemm_sm90_bf16"] {
        let mut function: Handle = std::ptr::null_mut();
        let symbol = CString::new(name).unwrap();
        let status = call!(
            driver,
            c"cuModuleGetFunction"(&raw mut function => *mut Handle, module => Handle, symbol.as_ptr() => *const c_char)
        );
        assert_eq!(status, NOT_FOUND, "{name}");
    }
}
