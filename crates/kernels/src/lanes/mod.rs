//! Vectors of f32, so that a kernel is written once for all widths.
//!
//! A kernel takes a value of a type that implements [`Lanes`]. Such a value is a proof: it exists only where the CPU
//! has the instructions, so its methods are safe to call wherever the kernel got it from. They are instructions only
//! once they are inlined into a function that is compiled for them ([`Lanes::run`]), hence `inline(always)` on every
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
/// Where two operands of `min` and `max` cannot be compared, the second is the result: pass the number that may be
/// NaN second, and it stays visible.
pub(crate) trait Lanes: Copy {
    /// A vector.
    type F32: Copy;

    /// Lanes of a vector.
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

    /// The sum of the lanes: halves are added until one lane is left.
    fn sum_of_lanes(self, x: Self::F32) -> f32;

    /// The least of lanes that are numbers.
    fn least_of_lanes(self, x: Self::F32) -> f32;

    /// The greatest of lanes that are numbers.
    fn greatest_of_lanes(self, x: Self::F32) -> f32;

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

    /// Writes the lanes rounded to integers, ties to even, and those below 0 as 0, those above 255 as 255; for numbers
    /// below 2^31 and above -2^31, any byte for others.
    ///
    /// # Safety
    ///
    /// `WIDTH` bytes can be written to `to`.
    unsafe fn store_u8(self, to: *mut u8, x: Self::F32);

    /// Reads `WIDTH` integers as f32, to the nearest.
    ///
    /// # Safety
    ///
    /// `WIDTH` numbers can be read from `from`.
    unsafe fn load_i32(self, from: *const i32) -> Self::F32;

    /// Transposes a block: `to[column][row] = from[row][column]`, where a step of a row is `stride` words.
    ///
    /// Bits are moved, not numbers: a word may as well be a pair of bf16.
    ///
    /// # Safety
    ///
    /// `from` holds `rows` rows of `columns` words, `to` has room for `columns` rows of `rows` words, neither count
    /// exceeds `WIDTH`, and the blocks do not overlap.
    unsafe fn transpose(self, block: Transpose);
}

/// What [`Lanes::transpose`] moves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transpose {
    pub(crate) from: *const f32,
    pub(crate) from_stride: usize,
    pub(crate) to: *mut f32,
    pub(crate) to_stride: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Work that is compiled once for each kind of vector.
pub(crate) trait Kernel {
    type Output;

    /// Must be `inline(always)`, as must be all that it calls with `simd`.
    fn run<S: Lanes>(self, simd: S) -> Self::Output;
}

/// Runs `kernel` on the widest vectors that `isa` and this CPU have.
pub(crate) fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = Avx512Bf16::to_round(isa) {
            return simd.run(kernel);
        }
        if let Some(simd) = Avx512::of(isa) {
            return simd.run(kernel);
        }
        if let Some(simd) = Avx2::of(isa) {
            return simd.run(kernel);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    Portable::<8>.run(kernel)
}

#[cfg(test)]
mod tests;
