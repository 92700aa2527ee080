//! Eight lanes: six rows by one panel are 12 of 16 registers.

use std::arch::x86_64::{
    __m256, _mm256_and_si256, _mm256_castsi256_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
};

use super::{Block, Words, portable, rows};

/// Words are f32.
struct Floats;
/// Words are pairs of bf16 that are widened; a row's are so already.
struct WidenedPairs;

macro_rules! float_sums {
    () => {
        type Sums = __m256;

        #[inline(always)]
        unsafe fn zero() -> __m256 {
            // SAFETY: the CPU has AVX2, here and below, by the promise of `Words`.
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

/// What is multiplied is f32, whatever it is in memory.
macro_rules! float_products {
    () => {
        type Right = __m256;
        type Left = __m256;

        float_sums!();

        #[inline(always)]
        unsafe fn left(from: *const u32) -> __m256 {
            // SAFETY: a word is there.
            unsafe { _mm256_set1_ps(*from.cast()) }
        }

        #[inline(always)]
        unsafe fn add(sums: __m256, left: __m256, right: __m256) -> __m256 {
            // SAFETY: the CPU has FMA.
            unsafe { _mm256_fmadd_ps(left, right, sums) }
        }
    };
}

impl Words<2> for Floats {
    float_products!();

    #[inline(always)]
    unsafe fn right<const STEP: usize>(from: *const u32) -> __m256 {
        // SAFETY: a vector is there.
        unsafe { _mm256_loadu_ps(from.cast()) }
    }
}

impl Words<2> for WidenedPairs {
    const STEPS: usize = 2;

    float_products!();

    #[inline(always)]
    unsafe fn right<const STEP: usize>(from: *const u32) -> __m256 {
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
/// As for [`Block::multiply`], and the CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(in crate::gemm) unsafe fn f32(block: &Block) {
    for panel in 0..block.panels {
        // SAFETY: the caller's promise.
        unsafe { rows::<Floats, 2, 1, false>(block, panel) };
    }
}

/// # Safety
///
/// As for [`Block::multiply`], and the CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(in crate::gemm) unsafe fn bf16_by_f32(block: &Block) {
    for panel in 0..block.panels {
        // SAFETY: the caller's promise.
        unsafe { rows::<WidenedPairs, 2, 1, false>(block, panel) };
    }
}

/// The plain form, compiled for wider vectors: there is no product of bytes that cannot overflow.
///
/// # Safety
///
/// As for [`Block::multiply`], and the CPU has AVX2.
#[target_feature(enable = "avx2")]
pub(in crate::gemm) unsafe fn int8(block: &Block) {
    // SAFETY: the caller's promise.
    unsafe { portable::int8(block) };
}
