//! Vectors as arrays, which the compiler vectorizes where it can.

use std::array;

use half::bf16;

use super::{Kernel, Simd, Transpose};

/// Arrays of `N` numbers. With one number it is the reference of every other form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable<const N: usize>;

impl<const N: usize> Simd for Portable<N> {
    type F32 = [f32; N];

    const WIDTH: usize = N;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; N] {
        [x; N]
    }

    #[inline(always)]
    fn add(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        array::from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        array::from_fn(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn min(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn max(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn abs(self, a: [f32; N]) -> [f32; N] {
        a.map(f32::abs)
    }

    // Not `f32::mul_add`: where there is no such instruction it is a call.
    #[inline(always)]
    fn mul_add(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn neg_mul_add(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        array::from_fn(|i| c[i] - a[i] * b[i])
    }

    #[inline(always)]
    fn split(self, t: [f32; N]) -> ([f32; N], [f32; N]) {
        // An exponent of -127 has the bits of zero. NaN stays in the fraction.
        let t = self.max([-127.0; N], t);
        let power = t.map(floor);
        (self.sub(t, power), power)
    }

    #[inline(always)]
    fn scale_by_power(self, x: [f32; N], power: [f32; N]) -> [f32; N] {
        // Adding 1.5 · 2^23 leaves an integer in the low bits.
        array::from_fn(|i| x[i] * f32::from_bits((power[i] + ROUNDING_SHIFT).to_bits().wrapping_add(127) << 23))
    }

    #[inline(always)]
    fn reduce_sum(self, x: [f32; N]) -> f32 {
        let (mut lanes, mut width) = (x, N);
        while width > 1 {
            width /= 2;
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
        }
        lanes[0]
    }

    #[inline(always)]
    fn reduce_min(self, x: [f32; N]) -> f32 {
        x.into_iter().fold(f32::INFINITY, f32::min)
    }

    #[inline(always)]
    fn reduce_max(self, x: [f32; N]) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> [f32; N] {
        // SAFETY: the caller vouches for N numbers; an array needs no more alignment than its numbers.
        unsafe { *from.cast() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: [f32; N]) {
        // SAFETY: as for `load`.
        unsafe { *to.cast() = x };
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> [f32; N] {
        // SAFETY: as for `load`.
        let x: [bf16; N] = unsafe { *from.cast() };
        x.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16))
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, x: [f32; N]) {
        // SAFETY: as for `store`.
        unsafe { *to.cast() = x.map(bf16::from_f32) };
    }

    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8, x: [f32; N]) {
        // SAFETY: as for `store`.
        unsafe { *to.cast() = x.map(|x| (x.clamp(0.0, 255.0) + ROUNDING_SHIFT).to_bits() as u8) };
    }

    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> [f32; N] {
        // SAFETY: as for `load`.
        let steps = unsafe { *from.cast::<[i32; N]>() };
        steps.map(|step| step as f32)
    }

    #[inline(always)]
    unsafe fn transpose(self, block: Transpose) {
        for row in 0..block.rows {
            for column in 0..block.columns {
                // SAFETY: inside both blocks, which the caller vouches for.
                unsafe {
                    let from = block.from.add(row * block.from_stride + column);
                    *block.to.add(column * block.to_stride + row) = *from;
                }
            }
        }
    }
}

/// 1.5 · 2^23: adding it rounds to an integer, which is then in the low bits.
const ROUNDING_SHIFT: f32 = 12_582_912.0;

/// Not `f32::floor`: where there is no such instruction it is a call. Correct below 2^22, which is enough here.
#[inline(always)]
fn floor(x: f32) -> f32 {
    let nearest = (x + ROUNDING_SHIFT) - ROUNDING_SHIFT;
    if nearest > x { nearest - 1.0 } else { nearest }
}
