//! Sixteen lanes: AVX-512 F, BW, DQ and VL, with and without the bf16 instructions.

use std::arch::x86_64::{
    __m128i, __m256bh, __m256i, __m512, _CMP_UNORD_Q, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEG_INF, _mm_add_ps, _mm_add_ss,
    _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps, _mm256_add_ps, _mm256_castps256_ps128, _mm256_extractf128_ps,
    _mm512_abs_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castps512_ps256,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtneps_pbh, _mm512_cvtps_epi32, _mm512_cvtusepi32_epi8, _mm512_div_ps, _mm512_extractf32x8_ps,
    _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_or_epi32,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_max_epi32, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_reduce_max_ps, _mm512_reduce_min_ps, _mm512_reduce_ps, _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_f32x4, _mm512_shuffle_ps, _mm512_slli_epi32,
    _mm512_srli_epi32, _mm512_storeu_ps, _mm512_sub_ps, _mm512_unpackhi_ps, _mm512_unpacklo_ps,
};

use half::bf16;

use super::{Kernel, Simd, Transpose};
use crate::Isa;

/// Proof that the CPU has AVX-512 F, BW, DQ and VL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The proof, where `isa` allows the instructions and the CPU has them.
    pub(crate) fn try_new(isa: Isa) -> Option<Self> {
        (isa.min(Isa::best()) >= Isa::Avx512).then_some(Self(()))
    }
}

/// Proof that the CPU has AVX-512 BF16 as well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512Bf16(());

impl Avx512Bf16 {
    /// The proof, where `isa` allows the instructions and the CPU has them.
    pub(crate) fn try_new(isa: Isa) -> Option<Self> {
        (isa.min(Isa::best()) >= Isa::Avx512Bf16).then_some(Self(()))
    }

    /// The proof for kernels that round to bf16 and do not multiply pairs. Rounding is fast on every CPU that has the
    /// instruction, so [`Isa::Avx512Vnni`] allows it too, where that is chosen because products of pairs are slow.
    pub(crate) fn for_rounding(isa: Isa) -> Option<Self> {
        (isa >= Isa::Avx512Vnni && Isa::best() >= Isa::Avx512Bf16).then_some(Self(()))
    }
}

/// Calls intrinsics.
macro_rules! avx512 {
    ($body:expr) => {{
        // SAFETY: `self` is the proof that the CPU has the instructions; the caller of the
        // method vouches for the memory behind pointers.
        unsafe { $body }
    }};
}

/// The methods that both share: all but `run` and `store_bf16`.
macro_rules! sixteen_lanes {
    () => {
        type F32 = __m512;

        const WIDTH: usize = 16;

        #[inline(always)]
        fn splat(self, x: f32) -> __m512 {
            avx512!(_mm512_set1_ps(x))
        }

        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            avx512!(_mm512_add_ps(a, b))
        }

        #[inline(always)]
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            avx512!(_mm512_sub_ps(a, b))
        }

        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            avx512!(_mm512_mul_ps(a, b))
        }

        #[inline(always)]
        fn div(self, a: __m512, b: __m512) -> __m512 {
            avx512!(_mm512_div_ps(a, b))
        }

        #[inline(always)]
        fn min(self, a: __m512, b: __m512) -> __m512 {
            avx512!(_mm512_min_ps(a, b))
        }

        #[inline(always)]
        fn max(self, a: __m512, b: __m512) -> __m512 {
            avx512!(_mm512_max_ps(a, b))
        }

        #[inline(always)]
        fn abs(self, a: __m512) -> __m512 {
            avx512!(_mm512_abs_ps(a))
        }

        #[inline(always)]
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            avx512!(_mm512_fmadd_ps(a, b, c))
        }

        #[inline(always)]
        fn neg_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            avx512!(_mm512_fnmadd_ps(a, b, c))
        }

        #[inline(always)]
        fn split(self, t: __m512) -> (__m512, __m512) {
            // `scalef` takes the floor of the power itself, and any power.
            (avx512!(_mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(t)), t)
        }

        #[inline(always)]
        fn scale_by_power(self, x: __m512, power: __m512) -> __m512 {
            avx512!(_mm512_scalef_ps(x, power))
        }

        #[inline(always)]
        fn reduce_sum(self, x: __m512) -> f32 {
            avx512!({
                let eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
                let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            })
        }

        #[inline(always)]
        fn reduce_min(self, x: __m512) -> f32 {
            avx512!(_mm512_reduce_min_ps(x))
        }

        #[inline(always)]
        fn reduce_max(self, x: __m512) -> f32 {
            avx512!(_mm512_reduce_max_ps(x))
        }

        #[inline(always)]
        unsafe fn load(self, from: *const f32) -> __m512 {
            avx512!(_mm512_loadu_ps(from))
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32, x: __m512) {
            avx512!(_mm512_storeu_ps(to, x));
        }

        #[inline(always)]
        unsafe fn load_bf16(self, from: *const bf16) -> __m512 {
            avx512!({
                let halves = from.cast::<__m256i>().read_unaligned();
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
            })
        }

        #[inline(always)]
        unsafe fn store_u8(self, to: *mut u8, x: __m512) {
            avx512!({
                let steps = _mm512_max_epi32(_mm512_cvtps_epi32(x), _mm512_setzero_si512());
                to.cast::<__m128i>().write_unaligned(_mm512_cvtusepi32_epi8(steps));
            });
        }

        #[inline(always)]
        unsafe fn load_i32(self, from: *const i32) -> __m512 {
            avx512!(_mm512_cvtepi32_ps(_mm512_loadu_si512(from.cast())))
        }

        #[inline(always)]
        unsafe fn transpose(self, block: Transpose) {
            avx512!(transpose(block));
        }
    };
}

impl Simd for Avx512 {
    sixteen_lanes!();

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn compiled<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        avx512!(compiled(self, kernel))
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, x: __m512) {
        avx512!(to.cast::<__m256i>().write_unaligned(round_to_bf16(x)));
    }
}

impl Simd for Avx512Bf16 {
    sixteen_lanes!();

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
        fn compiled<K: Kernel>(simd: Avx512Bf16, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        avx512!(compiled(self, kernel))
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, x: __m512) {
        avx512!(to.cast::<__m256bh>().write_unaligned(_mm512_cvtneps_pbh(x)));
    }
}

/// The bf16 nearest to each lane, ties to even.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn round_to_bf16(x: __m512) -> __m256i {
    let bits = _mm512_castps_si512(x);
    let high = _mm512_srli_epi32::<16>(bits);
    // Half a unit less one, plus the last bit that is kept: ties go to even.
    let odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF));
    let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, half));
    // Rounding could carry the bits of a NaN into its sign: NaNs are truncated instead, with the quiet bit set.
    let unordered = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
    _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, unordered, high, _mm512_set1_epi32(0x40)))
}

/// # Safety
///
/// As for [`Simd::transpose`].
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn transpose(block: Transpose) {
    let columns = first_lanes(block.columns);
    let mut rows = [_mm512_setzero_ps(); 16];
    for (i, row) in rows.iter_mut().enumerate().take(block.rows) {
        // SAFETY: the block holds row `i` up to its last column, and the mask ends there.
        *row = unsafe { _mm512_maskz_loadu_ps(columns, block.from.add(i * block.from_stride)) };
    }
    // Two rows, then four rows of one column, in each quarter.
    let mut fours = [_mm512_setzero_ps(); 16];
    for i in 0..4 {
        let low = _mm512_unpacklo_ps(rows[4 * i], rows[4 * i + 1]);
        let high = _mm512_unpackhi_ps(rows[4 * i], rows[4 * i + 1]);
        let next_low = _mm512_unpacklo_ps(rows[4 * i + 2], rows[4 * i + 3]);
        let next_high = _mm512_unpackhi_ps(rows[4 * i + 2], rows[4 * i + 3]);
        fours[4 * i] = _mm512_shuffle_ps::<0b01_00_01_00>(low, next_low);
        fours[4 * i + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(low, next_low);
        fours[4 * i + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(high, next_high);
        fours[4 * i + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(high, next_high);
    }
    // `fours[4 * i + c]` holds rows 4 i to 4 i + 3 of columns c, c + 4, c + 8 and c + 12.
    let mut whole = [_mm512_setzero_ps(); 16];
    for c in 0..4 {
        let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(fours[c], fours[4 + c]);
        let odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(fours[c], fours[4 + c]);
        let next_even = _mm512_shuffle_f32x4::<0b10_00_10_00>(fours[8 + c], fours[12 + c]);
        let next_odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(fours[8 + c], fours[12 + c]);
        whole[c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(even, next_even);
        whole[c + 4] = _mm512_shuffle_f32x4::<0b10_00_10_00>(odd, next_odd);
        whole[c + 8] = _mm512_shuffle_f32x4::<0b11_01_11_01>(even, next_even);
        whole[c + 12] = _mm512_shuffle_f32x4::<0b11_01_11_01>(odd, next_odd);
    }
    let rows = first_lanes(block.rows);
    for (i, column) in whole.iter().enumerate().take(block.columns) {
        // SAFETY: the other block has room for column `i` up to its last row, and the mask ends there.
        unsafe { _mm512_mask_storeu_ps(block.to.add(i * block.to_stride), rows, *column) };
    }
}

/// A mask of the first `lanes` of sixteen.
#[inline(always)]
fn first_lanes(lanes: usize) -> u16 {
    ((1_u32 << lanes) - 1) as u16
}
