//! A device that is older than the kernels.

#![cfg(target_os = "linux")]

use polylance_cuda::{CudaError, Gpu, gpus};
use polylance_fake_cuda::FakeDriver;

#[test]
fn a_device_below_8_0_is_listed_and_cannot_be_opened() {
    let driver = FakeDriver::load_with(&[("FAKE_CUDA_COMPUTE", "7.5")]);
    assert_eq!(gpus()[0].compute, (7, 5));
    let error = Gpu::open(0).unwrap_err();
    assert_eq!(error, CudaError::Unsupported { device: "GPU 0 (Fake GPU)".to_owned(), compute: (7, 5) });
    // Nothing was retained.
    assert_eq!(driver.take_log(), []);
}
