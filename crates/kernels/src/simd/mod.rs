//! Vectors of f32, so that a kernel is written once for all widths.
//!
//! A kernel takes a value of a type that implements [`Simd`]. Such a value is a proof token: it exists only where the
//! CPU has the instructions, so its methods are safe to call. They compile to single instructions only when they are
//! inlined into a function that is compiled for the instruction set ([`Simd::run`]), hence `inline(always)` on every
//! method here and on every function between `run` and a method.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use half::bf16;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, Avx512Bf16};
pub(crate) use portable::Portable;

use crate::Isa;

/// Vector arithmetic on [`Self::WIDTH`] lanes of f32.
///
/// Where an operand of `min` or `max` is NaN, the second operand is the result: pass the number that may be NaN second,
/// and NaN is propagated.
pub(crate) trait Simd: Copy {
    /// A vector.
    type F32: Copy;

    /// Simd of a vector.
    const WIDTH: usize;

    /// Runs `kernel` in a function that is compiled for these instructions.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    fn splat(self, x: f32) -> Self::F32;
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn abs(self, a: Self::F32) -> Self::F32;

    /// `a · b + c`, rounded once where the CPU can.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;

    /// `c − a · b`, rounded once where the CPU can.
    fn neg_mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;

    /// `t` as a fraction in `[0, 1]` and a power for [`Self::scale_by_power`], for `t` up to 127.
    fn split(self, t: Self::F32) -> (Self::F32, Self::F32);

    /// `x · 2^floor(t)`, where `power` was [split](Self::split) from `t`; 0 below -126, or a subnormal number where
    /// one instruction does it all.
    fn scale_by_power(self, x: Self::F32, power: Self::F32) -> Self::F32;

    /// The sum of the lanes: the halves of the vector are added until one lane is left.
    fn reduce_sum(self, x: Self::F32) -> f32;

    /// The smallest lane; the lanes must not be NaN.
    fn reduce_min(self, x: Self::F32) -> f32;

    /// The largest lane; the lanes must not be NaN.
    fn reduce_max(self, x: Self::F32) -> f32;

    /// # Safety
    ///
    /// `WIDTH` numbers can be read from `from`.
    unsafe fn load(self, from: *const f32) -> Self::F32;

    /// # Safety
    ///
    /// `WIDTH` numbers can be written to `to`.
    unsafe fn store(self, to: *mut f32, x: Self::F32);

    /// Reads `WIDTH` bf16 as f32.
    ///
    /// # Safety
    ///
    /// `WIDTH` numbers can be read from `from`.
    unsafe fn load_bf16(self, from: *const bf16) -> Self::F32;

    /// Writes the lanes rounded to bf16, to the nearest, ties to even.
    ///
    /// # Safety
    ///
    /// `WIDTH` numbers can be written to `to`.
    unsafe fn store_bf16(self, to: *mut bf16, x: Self::F32);

    /// Writes the lanes rounded to integers, ties to even, and clamped to `[0, 255]`. Numbers outside `(-2^31, 2^31)`
    /// become arbitrary bytes.
    ///
    /// # Safety
    ///
    /// `WIDTH` bytes can be written to `to`.
    unsafe fn store_u8(self, to: *mut u8, x: Self::F32);

    /// Reads `WIDTH` integers, rounded to the nearest f32.
    ///
    /// # Safety
    ///
    /// `WIDTH` numbers can be read from `from`.
    unsafe fn load_i32(self, from: *const i32) -> Self::F32;

    /// Transposes a block of 32-bit words: `to[column][row] = from[row][column]`, with rows `stride` words apart.
    ///
    /// Bits are moved, not numbers: a word may be a pair of bf16.
    ///
    /// # Safety
    ///
    /// `from` holds `rows` rows of `columns` words, `to` has room for `columns` rows of `rows` words, neither count
    /// exceeds `WIDTH`, and the blocks do not overlap.
    unsafe fn transpose(self, block: Transpose);
}

/// The operands of [`Simd::transpose`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transpose {
    pub(crate) from: *const f32,
    pub(crate) from_stride: usize,
    pub(crate) to: *mut f32,
    pub(crate) to_stride: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Work that is compiled once for each instruction set.
pub(crate) trait Kernel {
    type Output;

    /// This and every function that it calls with `simd` must be `inline(always)`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs `kernel` on the widest vectors that `isa` and this CPU have.
pub(crate) fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = Avx512Bf16::for_rounding(isa) {
            return simd.run(kernel);
        }
        if let Some(simd) = Avx512::try_new(isa) {
            return simd.run(kernel);
        }
        if let Some(simd) = Avx2::try_new(isa) {
            return simd.run(kernel);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    Portable::<8>.run(kernel)
}

#[cfg(test)]
mod tests;
