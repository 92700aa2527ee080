//! Eight lanes: the accumulators of six rows by one panel are 12 of 16 registers.

use std::arch::x86_64::{
    __m256, _mm256_and_si256, _mm256_castsi256_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
};

use super::{Block, MicroKernel, portable, row_loop};

/// Groups are f32.
struct F32;
/// Groups are pairs of bf16, widened when they are read; those of a row are widened already.
struct WidenedBf16;

macro_rules! f32_accumulators {
    () => {
        type Accumulator = __m256;

        #[inline(always)]
        unsafe fn zero() -> __m256 {
            // SAFETY: the CPU has AVX2, here and below, by the promise of `MicroKernel`.
            unsafe { _mm256_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load(from: *const u32) -> __m256 {
            // SAFETY: a vector is there.
            unsafe { _mm256_loadu_ps(from.cast()) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut u32, sums: __m256) {
            // SAFETY: there is room for a vector.
            unsafe { _mm256_storeu_ps(to.cast(), sums) }
        }
    };
}

/// Operands are f32 in registers, whatever they are in memory.
macro_rules! f32_products {
    () => {
        type Rhs = __m256;
        type Lhs = __m256;

        f32_accumulators!();

        #[inline(always)]
        unsafe fn lhs(from: *const u32) -> __m256 {
            // SAFETY: a group is there.
            unsafe { _mm256_set1_ps(*from.cast()) }
        }

        #[inline(always)]
        unsafe fn multiply_add(sums: __m256, lhs: __m256, rhs: __m256) -> __m256 {
            // SAFETY: the CPU has FMA.
            unsafe { _mm256_fmadd_ps(lhs, rhs, sums) }
        }
    };
}

impl MicroKernel<2> for F32 {
    f32_products!();

    #[inline(always)]
    unsafe fn rhs<const STEP: usize>(from: *const u32) -> __m256 {
        // SAFETY: a vector is there.
        unsafe { _mm256_loadu_ps(from.cast()) }
    }
}

impl MicroKernel<2> for WidenedBf16 {
    const STEPS: usize = 2;

    f32_products!();

    #[inline(always)]
    unsafe fn rhs<const STEP: usize>(from: *const u32) -> __m256 {
        // SAFETY: a vector is there. A bf16 is the upper half of an f32.
        unsafe {
            let pairs = _mm256_loadu_si256(from.cast());
            _mm256_castsi256_ps(if STEP == 0 {
                _mm256_slli_epi32::<16>(pairs)
            } else {
                _mm256_and_si256(pairs, _mm256_set1_epi32(0xFFFF_0000_u32.cast_signed()))
            })
        }
    }
}

/// # Safety
///
/// As for `dispatch::multiply`, and the CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(in crate::gemm) unsafe fn f32(block: &Block) {
    for panel in 0..block.panels {
        // SAFETY: the caller's promise.
        unsafe { row_loop::<F32, 2, 1, false>(block, panel) };
    }
}

/// # Safety
///
/// As for `dispatch::multiply`, and the CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(in crate::gemm) unsafe fn bf16_by_f32(block: &Block) {
    for panel in 0..block.panels {
        // SAFETY: the caller's promise.
        unsafe { row_loop::<WidenedBf16, 2, 1, false>(block, panel) };
    }
}

/// The portable micro-kernel, compiled for AVX2, whose products of bytes can overflow.
///
/// # Safety
///
/// As for `dispatch::multiply`, and the CPU has AVX2.
#[target_feature(enable = "avx2")]
pub(in crate::gemm) unsafe fn int8(block: &Block) {
    // SAFETY: the caller's promise.
    unsafe { portable::int8(block) };
}
