//! A driver for an older CUDA than the kernels are compiled with.

#![cfg(target_os = "linux")]

use polylance_cuda::{CudaError, Gpu, gpus, gpus_or_why};
use polylance_fake_cuda::FakeDriver;

#[test]
fn old_driver_error_names_its_version() {
    FakeDriver::load_with(&[("FAKE_CUDA_VERSION", "12040")]);
    assert_eq!(gpus(), []);
    let error = gpus_or_why().unwrap_err();
    assert_eq!(error, CudaError::OldDriver { found: 12_040, needed: 13_000, detail: None });
    assert_eq!(
        error.to_string(),
        "the NVIDIA driver is too old: it runs CUDA 12.4, this program needs CUDA 13.0; install driver 580 or newer"
    );
    assert_eq!(Gpu::open(0).unwrap_err(), error);
}
