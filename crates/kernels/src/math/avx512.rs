//! The functions on registers of sixteen numbers, for kernels that are written in intrinsics.

use std::arch::x86_64::__m512;

use crate::lanes::Avx512;

/// `x · Φ(x)`: see [`gelu`](super::gelu).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub(crate) fn gelu(x: __m512) -> __m512 {
    // SAFETY: the features are enabled here.
    super::gelu(unsafe { Avx512::new_unchecked() }, x)
}

/// For results that are rounded to bf16: see [`gelu_bf16`](super::gelu_bf16).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub(crate) fn gelu_bf16(x: __m512) -> __m512 {
    // SAFETY: the features are enabled here.
    super::gelu_bf16(unsafe { Avx512::new_unchecked() }, x)
}
