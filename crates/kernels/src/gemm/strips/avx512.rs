//! Sixteen lanes: six rows by four panels are 24 of 32 registers, and so are twelve rows by two panels.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_and_si512, _mm512_castsi512_ps, _mm512_dpbf16_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
};
use std::mem::transmute;

use super::{Block, Words, rows};

/// Words are f32.
struct Floats;
/// Words are pairs of bf16, multiplied by the instruction for them.
struct Pairs;
/// Words are pairs of bf16 that are widened; a row's are so already.
struct WidenedPairs;
/// Words are four bytes.
struct Bytes;

macro_rules! float_sums {
    () => {
        type Sums = __m512;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: the CPU has AVX-512, here and below, by the promise of `Words`.
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load(from: *const u32) -> __m512 {
            // SAFETY: a vector is there.
            unsafe { _mm512_loadu_ps(from.cast()) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut u32, sums: __m512) {
            // SAFETY: there is room for a vector.
            unsafe { _mm512_storeu_ps(to.cast(), sums) }
        }
    };
}

/// What is multiplied is f32, whatever it is in memory.
macro_rules! float_products {
    () => {
        type Right = __m512;
        type Left = __m512;

        float_sums!();

        #[inline(always)]
        unsafe fn left(from: *const u32) -> __m512 {
            // SAFETY: a word is there.
            unsafe { _mm512_set1_ps(*from.cast()) }
        }

        #[inline(always)]
        unsafe fn add(sums: __m512, left: __m512, right: __m512) -> __m512 {
            // SAFETY: the CPU has AVX-512.
            unsafe { _mm512_fmadd_ps(left, right, sums) }
        }
    };
}

impl Words<1> for Floats {
    float_products!();

    #[inline(always)]
    unsafe fn right<const STEP: usize>(from: *const u32) -> __m512 {
        // SAFETY: a vector is there.
        unsafe { _mm512_loadu_ps(from.cast()) }
    }
}

impl Words<1> for Pairs {
    type Right = __m512bh;
    type Left = __m512bh;

    float_sums!();

    #[inline(always)]
    unsafe fn right<const STEP: usize>(from: *const u32) -> __m512bh {
        // SAFETY: a vector is there, and any bits are pairs of bf16.
        unsafe { transmute(_mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn left(from: *const u32) -> __m512bh {
        // SAFETY: a word is there, and any bits are pairs of bf16.
        unsafe { transmute(_mm512_set1_epi32(*from.cast())) }
    }

    #[inline(always)]
    unsafe fn add(sums: __m512, left: __m512bh, right: __m512bh) -> __m512 {
        // SAFETY: the CPU has AVX-512 BF16.
        unsafe { _mm512_dpbf16_ps(sums, left, right) }
    }
}

impl Words<1> for WidenedPairs {
    const STEPS: usize = 2;

    float_products!();

    #[inline(always)]
    unsafe fn right<const STEP: usize>(from: *const u32) -> __m512 {
        // SAFETY: a vector is there. A bf16 is the upper half of an f32.
        unsafe {
            let pairs = _mm512_loadu_si512(from.cast());
            _mm512_castsi512_ps(if STEP == 0 {
                _mm512_slli_epi32::<16>(pairs)
            } else {
                _mm512_and_si512(pairs, _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed()))
            })
        }
    }
}

impl Words<1> for Bytes {
    type Sums = __m512i;
    type Right = __m512i;
    type Left = __m512i;

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the CPU has AVX-512.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> __m512i {
        // SAFETY: a vector is there.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut u32, sums: __m512i) {
        // SAFETY: there is room for a vector.
        unsafe { _mm512_storeu_si512(to.cast(), sums) }
    }

    #[inline(always)]
    unsafe fn right<const STEP: usize>(from: *const u32) -> __m512i {
        // SAFETY: a vector is there.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn left(from: *const u32) -> __m512i {
        // SAFETY: a word is there.
        unsafe { _mm512_set1_epi32(*from.cast()) }
    }

    #[inline(always)]
    unsafe fn add(sums: __m512i, left: __m512i, right: __m512i) -> __m512i {
        // SAFETY: the CPU has AVX-512 VNNI.
        unsafe { _mm512_dpbusd_epi32(sums, left, right) }
    }
}

/// All rows by all panels of a block.
macro_rules! kernel {
    ($name:ident, $words:ty, $features:literal) => {
        /// # Safety
        ///
        /// As for [`Block::multiply`], and the CPU has the features.
        #[target_feature(enable = $features)]
        pub(in crate::gemm) unsafe fn $name(block: &Block) {
            // SAFETY: the caller's promise.
            unsafe {
                match block.panels {
                    4 => rows::<$words, 1, 4, false>(block, 0),
                    3 => rows::<$words, 1, 3, false>(block, 0),
                    2 => rows::<$words, 1, 2, false>(block, 0),
                    _ => rows::<$words, 1, 1, false>(block, 0),
                }
            }
        }
    };
}

kernel!(f32, Floats, "avx512f,avx512bw,avx512dq,avx512vl");
kernel!(bf16, Pairs, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16");
kernel!(int8, Bytes, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni");

/// Two panels at a time: both forms of each are held, and widening them serves more rows.
///
/// # Safety
///
/// As for [`Block::multiply`], and the CPU has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(in crate::gemm) unsafe fn bf16_by_f32(block: &Block) {
    for panel in (0..block.panels).step_by(2) {
        // SAFETY: the caller's promise.
        unsafe {
            match block.panels - panel {
                1 => rows::<WidenedPairs, 1, 1, true>(block, panel),
                _ => rows::<WidenedPairs, 1, 2, true>(block, panel),
            }
        }
    }
}
