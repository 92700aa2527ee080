//! The functions on registers of eight numbers, for kernels that are written in intrinsics.

use std::arch::x86_64::__m256;

use crate::lanes::Avx2;

/// `x · Φ(x)`: see [`gelu`](super::gelu).
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(crate) fn gelu(x: __m256) -> __m256 {
    // SAFETY: the features are enabled here.
    super::gelu(unsafe { Avx2::new_unchecked() }, x)
}

/// For results that are rounded to bf16: see [`gelu_bf16`](super::gelu_bf16).
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(crate) fn gelu_bf16(x: __m256) -> __m256 {
    // SAFETY: the features are enabled here.
    super::gelu_bf16(unsafe { Avx2::new_unchecked() }, x)
}
