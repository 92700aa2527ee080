//! Arrays on the device, and comparison with numbers computed here.

use std::sync::Arc;

use anyhow::Result;
use half::{bf16, f16};
use polylance_cuda::{DeviceBuffer, Gpu, NumberType, Pass, Uploader, ops::Fill};
use rayon::prelude::*;

use crate::formula::Formula;

/// Bytes that are downloaded at once.
const DOWNLOAD_CHUNK_BYTES: usize = 32 << 20;

/// Fills memory that a kernel must write, or that follows its operands, with NaN.
fn poison(pass: &mut Pass<'_>, number: NumberType, buffer: &DeviceBuffer, from: usize, count: usize) -> Result<()> {
    let width = number.bytes();
    let out = buffer.slice(from * width..(from + count) * width)?;
    Ok(pass.fill(&Fill { number, out, seed: 0, first: 0, count, offset: f32::NAN, scale: 0.0 })?)
}

/// A buffer of `count` NaN.
pub(crate) fn poisoned(gpu: &Arc<Gpu>, number: NumberType, count: usize) -> Result<DeviceBuffer> {
    let buffer = DeviceBuffer::new(gpu, count * number.bytes())?;
    let mut pass = gpu.begin()?;
    poison(&mut pass, number, &buffer, 0, count)?;
    pass.finish()?.wait()?;
    Ok(buffer)
}

/// The first `count` numbers of a formula in a buffer of `room` numbers, the rest poisoned.
pub(crate) fn filled(gpu: &Arc<Gpu>, formula: &Formula, count: usize, room: usize) -> Result<DeviceBuffer> {
    let &Formula { number, seed, offset, scale } = formula;
    let width = number.bytes();
    // Kernels read and write 16 bytes at a time.
    let room = room.max(count).next_multiple_of(8);
    let buffer = DeviceBuffer::new(gpu, room * width)?;
    let mut pass = gpu.begin()?;
    let out = buffer.slice(0..count * width)?;
    pass.fill(&Fill { number, out, seed, first: 0, count, offset, scale })?;
    // The poison starts at a multiple of 16 bytes, where the kernel can write it.
    let end = count.next_multiple_of(8);
    if end < room {
        poison(&mut pass, number, &buffer, end, room - end)?;
    }
    pass.finish()?.wait()?;
    Ok(buffer)
}

/// Whole numbers: ids, positions, borders, tiles.
pub(crate) fn uploaded(gpu: &Arc<Gpu>, words: &[u32]) -> Result<DeviceBuffer> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let buffer = DeviceBuffer::new(gpu, bytes.len().next_multiple_of(16))?;
    let mut uploader = Uploader::new(gpu, bytes.len())?;
    uploader.upload(&bytes, buffer.slice(0..bytes.len())?)?;
    uploader.finish()?;
    Ok(buffer)
}

/// The first `count` numbers of a buffer.
pub(crate) fn downloaded(buffer: &DeviceBuffer, number: NumberType, count: usize) -> Result<Vec<f32>> {
    let width = number.bytes();
    let mut numbers = Vec::with_capacity(count);
    let mut bytes = vec![0; DOWNLOAD_CHUNK_BYTES.min(count * width)];
    for first in (0..count * width).step_by(DOWNLOAD_CHUNK_BYTES) {
        let end = (first + DOWNLOAD_CHUNK_BYTES).min(count * width);
        let part = &mut bytes[..end - first];
        buffer.gpu().download(buffer.slice(first..end)?, part)?;
        match number {
            NumberType::F32 => numbers.extend(part.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes))),
            NumberType::Bf16 => {
                numbers.extend(part.as_chunks::<2>().0.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()));
            }
            NumberType::F16 => {
                numbers.extend(part.as_chunks::<2>().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()));
            }
        }
    }
    Ok(numbers)
}

/// The errors of numbers of the device.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Distance {
    pub(crate) count: usize,
    /// The numbers that are not finite: not written, or computed from memory that must not be read.
    pub(crate) not_finite: usize,
    /// `‖found − expected‖ / ‖expected‖`.
    pub(crate) relative: f64,
    /// The largest `|found − expected| / (|expected| + rms)`, with `rms` that of the expected numbers: it shows
    /// one wrong number among millions.
    pub(crate) largest: f64,
}

impl Distance {
    pub(crate) fn between(found: &[f32], expected: &[f64]) -> Self {
        assert_eq!(found.len(), expected.len(), "as many numbers as expected");
        let squares: f64 = expected.par_iter().map(|x| x * x).sum();
        let rms = (squares / expected.len().max(1) as f64).sqrt();
        let of_pair = |(&found, &expected): (&f32, &f64)| {
            if !found.is_finite() {
                return (1, 0.0, 0.0);
            }
            let error = (f64::from(found) - expected).abs();
            // All expected numbers may be zero.
            (0, error * error, error / (expected.abs() + rms).max(f64::MIN_POSITIVE))
        };
        let pairs = found.par_iter().zip(expected).map(of_pair);
        let (not_finite, error, largest) = pairs.reduce(
            || (0, 0.0, 0.0),
            |a: (usize, f64, f64), b: (usize, f64, f64)| (a.0 + b.0, a.1 + b.1, a.2.max(b.2)),
        );
        let relative = (error / squares.max(f64::MIN_POSITIVE)).sqrt();
        Self { count: found.len(), not_finite, relative, largest }
    }

    /// Whether all numbers are finite and close enough.
    pub(crate) fn is_within(&self, tolerance: f64) -> bool {
        const OF_ONE_NUMBER: f64 = 4.0;
        self.not_finite == 0 && self.relative <= tolerance && self.largest <= OF_ONE_NUMBER * tolerance
    }
}

/// The largest allowed `‖error‖ / ‖result‖` against sums in f64: rounding of the result, and of sums in f32.
pub(crate) fn tolerance(number: NumberType) -> f64 {
    match number {
        NumberType::F32 => 1e-5,
        NumberType::F16 => 6e-4,
        NumberType::Bf16 => 4e-3,
    }
}

/// The cosine of the angle between two vectors.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The largest difference of two numbers at the same index; NaN if one of them is NaN.
pub(crate) fn largest_difference<'a>(
    a: impl IntoIterator<Item = &'a f32>,
    b: impl IntoIterator<Item = &'a f32>,
) -> f32 {
    let differences = a.into_iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |most, apart| if apart > most || apart.is_nan() { apart } else { most })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_or_missing_number_is_found_among_many() {
        let expected: Vec<f64> = (0..100_000).map(|at| f64::from(at % 7) - 3.0).collect();
        let mut found: Vec<f32> = expected.iter().map(|x| *x as f32).collect();
        assert!(Distance::between(&found, &expected).is_within(1e-12));
        found[7777] += 0.1;
        let wrong = Distance::between(&found, &expected);
        assert!(wrong.relative < 1e-3 && !wrong.is_within(1e-3), "{wrong:?}");
        found[7777] = f32::NAN;
        assert!(!Distance::between(&found, &expected).is_within(1.0));
    }

    #[test]
    fn a_difference_that_is_not_a_number_is_kept() {
        assert_eq!(largest_difference(&[1.0, 2.0], &[1.5, 2.25]), 0.5);
        assert!(largest_difference(&[f32::NAN, 2.0], &[1.5, 2.25]).is_nan());
    }
}
