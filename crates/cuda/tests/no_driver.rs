//! A machine without a driver: no test of this file loads the fake one.

use std::path::Path;

use polylance_cuda::{CudaError, Gpu, gpus, gpus_or_why};

#[test]
fn machine_without_a_driver_has_no_gpus_and_a_reason() {
    if Path::new("/proc/driver/nvidia").exists() {
        assert_eq!(gpus(), gpus_or_why().unwrap_or_default());
        return;
    }
    assert_eq!(gpus(), []);
    let error = gpus_or_why().unwrap_err();
    let CudaError::NoDriver { reason } = &error else { panic!("{error}") };
    assert!(reason.contains("libcuda.so.1"), "{reason}");
    assert_eq!(Gpu::open(0).unwrap_err(), error);
    assert_eq!(Gpu::reset(0).unwrap_err(), error);
}
