//! Sixteen lanes: the accumulators of six rows by four panels are 24 of 32 registers, as are those of twelve by two.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_and_si512, _mm512_castsi512_ps, _mm512_dpbf16_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
};
use std::mem::transmute;

use super::{Block, MicroKernel, row_loop};

/// Groups are f32.
struct F32;
/// Groups are pairs of bf16, multiplied by the instruction for pairs.
struct Bf16Pairs;
/// Groups are pairs of bf16, widened when they are read; those of a row are widened already.
struct WidenedBf16;
/// Groups are four bytes.
struct Int8;

macro_rules! f32_accumulators {
    () => {
        type Accumulator = __m512;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: the CPU has AVX-512, here and below, by the promise of `MicroKernel`.
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

/// Operands are f32 in registers, whatever they are in memory.
macro_rules! f32_products {
    () => {
        type Rhs = __m512;
        type Lhs = __m512;

        f32_accumulators!();

        #[inline(always)]
        unsafe fn lhs(from: *const u32) -> __m512 {
            // SAFETY: a group is there.
            unsafe { _mm512_set1_ps(*from.cast()) }
        }

        #[inline(always)]
        unsafe fn multiply_add(sums: __m512, lhs: __m512, rhs: __m512) -> __m512 {
            // SAFETY: the CPU has AVX-512.
            unsafe { _mm512_fmadd_ps(lhs, rhs, sums) }
        }
    };
}

impl MicroKernel<1> for F32 {
    f32_products!();

    #[inline(always)]
    unsafe fn rhs<const STEP: usize>(from: *const u32) -> __m512 {
        // SAFETY: a vector is there.
        unsafe { _mm512_loadu_ps(from.cast()) }
    }
}

impl MicroKernel<1> for Bf16Pairs {
    type Rhs = __m512bh;
    type Lhs = __m512bh;

    f32_accumulators!();

    #[inline(always)]
    unsafe fn rhs<const STEP: usize>(from: *const u32) -> __m512bh {
        // SAFETY: a vector is there, and any bits are pairs of bf16.
        unsafe { transmute(_mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn lhs(from: *const u32) -> __m512bh {
        // SAFETY: a group is there, and any bits are pairs of bf16.
        unsafe { transmute(_mm512_set1_epi32(*from.cast())) }
    }

    #[inline(always)]
    unsafe fn multiply_add(sums: __m512, lhs: __m512bh, rhs: __m512bh) -> __m512 {
        // SAFETY: the CPU has AVX-512 BF16.
        unsafe { _mm512_dpbf16_ps(sums, lhs, rhs) }
    }
}

impl MicroKernel<1> for WidenedBf16 {
    const STEPS: usize = 2;

    f32_products!();

    #[inline(always)]
    unsafe fn rhs<const STEP: usize>(from: *const u32) -> __m512 {
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

impl MicroKernel<1> for Int8 {
    type Accumulator = __m512i;
    type Rhs = __m512i;
    type Lhs = __m512i;

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
    unsafe fn rhs<const STEP: usize>(from: *const u32) -> __m512i {
        // SAFETY: a vector is there.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn lhs(from: *const u32) -> __m512i {
        // SAFETY: a group is there.
        unsafe { _mm512_set1_epi32(*from.cast()) }
    }

    #[inline(always)]
    unsafe fn multiply_add(sums: __m512i, lhs: __m512i, rhs: __m512i) -> __m512i {
        // SAFETY: the CPU has AVX-512 VNNI.
        unsafe { _mm512_dpbusd_epi32(sums, lhs, rhs) }
    }
}

/// All rows by all panels of a block.
macro_rules! all_panels {
    ($name:ident, $kernel:ty, $features:literal) => {
        /// # Safety
        ///
        /// As for `dispatch::multiply`, and the CPU has the features.
        #[target_feature(enable = $features)]
        pub(in crate::gemm) unsafe fn $name(block: &Block) {
            // SAFETY: the caller's promise.
            unsafe {
                match block.panels {
                    4 => row_loop::<$kernel, 1, 4, false>(block, 0),
                    3 => row_loop::<$kernel, 1, 3, false>(block, 0),
                    2 => row_loop::<$kernel, 1, 2, false>(block, 0),
                    _ => row_loop::<$kernel, 1, 1, false>(block, 0),
                }
            }
        }
    };
}

all_panels!(f32, F32, "avx512f,avx512bw,avx512dq,avx512vl");
all_panels!(bf16, Bf16Pairs, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16");
all_panels!(int8, Int8, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni");

/// Two panels at a time, for twelve rows: a panel that was widened once then serves more rows.
///
/// # Safety
///
/// As for `dispatch::multiply`, and the CPU has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(in crate::gemm) unsafe fn bf16_by_f32(block: &Block) {
    for panel in (0..block.panels).step_by(2) {
        // SAFETY: the caller's promise.
        unsafe {
            match block.panels - panel {
                1 => row_loop::<WidenedBf16, 1, 1, true>(block, panel),
                _ => row_loop::<WidenedBf16, 1, 2, true>(block, panel),
            }
        }
    }
}
