//! The elements of rows in memory: f32 or bf16. Kernels compute in f32 either way.

use half::bf16;

use crate::{math, simd::Simd};

/// An element of a row. Methods must be `inline(always)`.
pub(crate) trait Element: Copy {
    /// # Safety
    ///
    /// A vector can be read from `from`.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::F32;

    /// # Safety
    ///
    /// A vector can be written to `to`.
    unsafe fn store<S: Simd>(simd: S, to: *mut Self, x: S::F32);

    /// GELU, as precise as the element.
    fn gelu<S: Simd>(simd: S, x: S::F32) -> S::F32;

    /// `2^t` for `t ≤ 0`, as precise as the element.
    fn exp2<S: Simd>(simd: S, t: S::F32) -> S::F32;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::F32 {
        // SAFETY: the caller's promise.
        unsafe { simd.load(from) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(simd: S, to: *mut Self, x: S::F32) {
        // SAFETY: the caller's promise.
        unsafe { simd.store(to, x) }
    }

    #[inline(always)]
    fn gelu<S: Simd>(simd: S, x: S::F32) -> S::F32 {
        math::gelu(simd, x)
    }

    #[inline(always)]
    fn exp2<S: Simd>(simd: S, t: S::F32) -> S::F32 {
        math::exp2(simd, t)
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::F32 {
        // SAFETY: the caller's promise.
        unsafe { simd.load_bf16(from) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(simd: S, to: *mut Self, x: S::F32) {
        // SAFETY: the caller's promise.
        unsafe { simd.store_bf16(to, x) }
    }

    #[inline(always)]
    fn gelu<S: Simd>(simd: S, x: S::F32) -> S::F32 {
        math::gelu_bf16(simd, x)
    }

    #[inline(always)]
    fn exp2<S: Simd>(simd: S, t: S::F32) -> S::F32 {
        math::exp2_bf16(simd, t)
    }
}
