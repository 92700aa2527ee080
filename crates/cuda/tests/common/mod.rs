//! Helpers of the tests on the fake driver.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod reference;

use std::sync::Arc;

use half::{bf16, f16};
use polylance_cuda::{DeviceBuffer, Gpu, NumberType, PinnedBuffer, Pod, Result};

/// A buffer with these numbers, of at least `bytes` bytes.
pub fn upload_padded<T: Pod>(gpu: &Arc<Gpu>, numbers: &[T], bytes: usize) -> Result<DeviceBuffer> {
    let buffer = DeviceBuffer::new(gpu, bytes.max(size_of_val(numbers)))?;
    let mut pinned = PinnedBuffer::new(gpu, size_of_val(numbers))?;
    pinned.as_mut_slice::<T>().copy_from_slice(numbers);
    let mut pass = gpu.begin()?;
    let slot = pass.hold(pinned)?;
    pass.upload(slot, 0, buffer.slice(0..size_of_val(numbers))?)?;
    pass.finish()?.wait()?;
    Ok(buffer)
}

/// A buffer with these numbers.
pub fn upload<T: Pod>(gpu: &Arc<Gpu>, numbers: &[T]) -> Result<DeviceBuffer> {
    upload_padded(gpu, numbers, 0)
}

/// The first `count` numbers of a buffer.
pub fn download<T: Pod>(buffer: &DeviceBuffer, count: usize) -> Result<Vec<T>> {
    let gpu = buffer.gpu();
    let bytes = count * size_of::<T>();
    let mut pass = gpu.begin()?;
    let slot = pass.hold(PinnedBuffer::new(gpu, bytes)?)?;
    pass.download(buffer.slice(0..bytes)?, slot, 0)?;
    let mut done = pass.finish()?.wait()?;
    Ok(done.take(slot).map(|pinned| pinned.as_slice().to_vec()).unwrap_or_default())
}

/// A number as it is stored on the device.
pub trait Stored: Pod {
    const TYPE: NumberType;
    /// How far a result may be from the reference, which sums in f64.
    const TOLERANCE: f64;

    fn round(number: f32) -> Self;
    fn value(self) -> f32;
}

impl Stored for f32 {
    const TYPE: NumberType = NumberType::F32;
    const TOLERANCE: f64 = 1e-5;

    fn round(number: f32) -> Self {
        number
    }

    fn value(self) -> f32 {
        self
    }
}

impl Stored for bf16 {
    const TYPE: NumberType = NumberType::Bf16;
    const TOLERANCE: f64 = 8e-3;

    fn round(number: f32) -> Self {
        Self::from_f32(number)
    }

    fn value(self) -> f32 {
        self.to_f32()
    }
}

impl Stored for f16 {
    const TYPE: NumberType = NumberType::F16;
    const TOLERANCE: f64 = 1e-3;

    fn round(number: f32) -> Self {
        Self::from_f32(number)
    }

    fn value(self) -> f32 {
        self.to_f32()
    }
}

/// Numbers within -1 and 1 that depend on the seed, rounded to `T`.
pub fn numbers<T: Stored>(seed: u64, count: usize) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| T::round(next())).collect()
}

/// Panics unless every number is within the tolerance of its type.
#[track_caller]
pub fn assert_near<T: Stored>(actual: &[T], expected: &[f64], what: &str) {
    assert_near_within(actual, expected, T::TOLERANCE, what);
}

/// Every number is within `tolerance` of the reference, relative to 1 or its size.
#[track_caller]
pub fn assert_near_within<T: Stored>(actual: &[T], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (place, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(actual.value()) - expected).abs();
        let near = error <= tolerance * expected.abs().max(1.0);
        assert!(near, "{what} {} at {place}: {} is not {expected}", T::TYPE, actual.value());
    }
}
