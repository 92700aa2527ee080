//! Eight lanes: AVX2, FMA and F16C.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _CMP_UNORD_Q, _mm_add_ps, _mm_add_ss, _mm_cvtsi128_si64, _mm_cvtss_f32, _mm_max_ps,
    _mm_max_ss, _mm_min_ps, _mm_min_ss, _mm_movehdup_ps, _mm_movehl_ps, _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps,
    _mm256_and_si256, _mm256_blendv_epi8, _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps,
    _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtps_epi32,
    _mm256_div_ps, _mm256_extractf128_ps, _mm256_floor_ps, _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_or_si256, _mm256_packs_epi32,
    _mm256_packus_epi16, _mm256_packus_epi32, _mm256_permute2f128_ps, _mm256_permute4x64_epi64,
    _mm256_permutevar8x32_epi32, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_shuffle_ps,
    _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_ps, _mm256_sub_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};

use half::bf16;

use super::{Kernel, Portable, Simd, Transpose};
use crate::Isa;

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, where `isa` allows the instructions and the CPU has them.
    pub(crate) fn try_new(isa: Isa) -> Option<Self> {
        (Isa::Avx2 <= isa && isa.min(Isa::best()) >= Isa::Avx2).then_some(Self(()))
    }
}

/// Calls intrinsics.
macro_rules! avx2 {
    ($body:expr) => {{
        // SAFETY: `self` is the proof that the CPU has the instructions; the caller of the
        // method vouches for the memory behind pointers.
        unsafe { $body }
    }};
}

impl Simd for Avx2 {
    type F32 = __m256;

    const WIDTH: usize = 8;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        avx2!(compiled(self, kernel))
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        avx2!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        avx2!(_mm256_and_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX))))
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        avx2!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn neg_mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        avx2!(_mm256_fnmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn split(self, t: __m256) -> (__m256, __m256) {
        avx2!({
            // An exponent of -127 has the bits of zero. NaN stays in the fraction.
            let t = _mm256_max_ps(_mm256_set1_ps(-127.0), t);
            let power = _mm256_floor_ps(t);
            (_mm256_sub_ps(t, power), power)
        })
    }

    #[inline(always)]
    fn scale_by_power(self, x: __m256, power: __m256) -> __m256 {
        avx2!({
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(power), _mm256_set1_epi32(127));
            _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
        })
    }

    #[inline(always)]
    fn reduce_sum(self, x: __m256) -> f32 {
        avx2!({
            let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn reduce_min(self, x: __m256) -> f32 {
        avx2!({
            let four = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn reduce_max(self, x: __m256) -> f32 {
        avx2!({
            let four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        avx2!(_mm256_loadu_ps(from))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: __m256) {
        avx2!(_mm256_storeu_ps(to, x));
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m256 {
        avx2!({
            let halves = from.cast::<__m128i>().read_unaligned();
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
        })
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, x: __m256) {
        avx2!({
            let rounded = round_to_bf16(x);
            let packed = _mm256_packus_epi32(rounded, rounded);
            // `packus` works within each half: the numbers of the second half are in the third quarter.
            let packed = _mm256_permute4x64_epi64::<0b00_00_10_00>(packed);
            to.cast::<__m128i>().write_unaligned(_mm256_castsi256_si128(packed));
        });
    }

    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8, x: __m256) {
        avx2!({
            let steps = _mm256_cvtps_epi32(x);
            let pairs = _mm256_packs_epi32(steps, steps);
            let bytes = _mm256_packus_epi16(pairs, pairs);
            // Both packs work within each half: four bytes are in the first word of each.
            let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4));
            to.cast::<i64>().write_unaligned(_mm_cvtsi128_si64(_mm256_castsi256_si128(bytes)));
        });
    }

    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> __m256 {
        avx2!(_mm256_cvtepi32_ps(_mm256_loadu_si256(from.cast())))
    }

    #[inline(always)]
    unsafe fn transpose(self, block: Transpose) {
        if block.rows == 8 && block.columns == 8 {
            // SAFETY: the caller vouches for both blocks, which are eight by eight.
            avx2!(transpose_8x8(block));
        } else {
            // SAFETY: the caller's promise, passed on.
            unsafe { Portable::<8>.transpose(block) };
        }
    }
}

/// The bf16 nearest to each lane, in the low half of the lane.
#[target_feature(enable = "avx2")]
#[inline]
fn round_to_bf16(x: __m256) -> __m256i {
    let bits = _mm256_castps_si256(x);
    let high = _mm256_srli_epi32::<16>(bits);
    // Half a unit less one, plus the last bit that is kept: ties go to even.
    let odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF));
    let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half));
    // Rounding could carry the bits of a NaN into its sign: NaNs keep their upper bits, with the quiet bit set.
    let quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    let unordered = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
    _mm256_blendv_epi8(rounded, quiet, unordered)
}

/// # Safety
///
/// Both blocks hold eight rows of eight words.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn transpose_8x8(block: Transpose) {
    // SAFETY: row `i` of eight words, for which the caller vouches.
    let row = |i: usize| unsafe { _mm256_loadu_ps(block.from.add(i * block.from_stride)) };
    let pairs = [
        _mm256_unpacklo_ps(row(0), row(1)),
        _mm256_unpackhi_ps(row(0), row(1)),
        _mm256_unpacklo_ps(row(2), row(3)),
        _mm256_unpackhi_ps(row(2), row(3)),
        _mm256_unpacklo_ps(row(4), row(5)),
        _mm256_unpackhi_ps(row(4), row(5)),
        _mm256_unpacklo_ps(row(6), row(7)),
        _mm256_unpackhi_ps(row(6), row(7)),
    ];
    // Four rows of one column in each half: columns 0 to 3 and 4 to 7.
    let fours = [
        _mm256_shuffle_ps::<0b01_00_01_00>(pairs[0], pairs[2]),
        _mm256_shuffle_ps::<0b11_10_11_10>(pairs[0], pairs[2]),
        _mm256_shuffle_ps::<0b01_00_01_00>(pairs[1], pairs[3]),
        _mm256_shuffle_ps::<0b11_10_11_10>(pairs[1], pairs[3]),
        _mm256_shuffle_ps::<0b01_00_01_00>(pairs[4], pairs[6]),
        _mm256_shuffle_ps::<0b11_10_11_10>(pairs[4], pairs[6]),
        _mm256_shuffle_ps::<0b01_00_01_00>(pairs[5], pairs[7]),
        _mm256_shuffle_ps::<0b11_10_11_10>(pairs[5], pairs[7]),
    ];
    for i in 0..4 {
        // SAFETY: rows `i` and `i + 4` of the other block, for which the caller vouches.
        unsafe {
            let to = block.to.add(i * block.to_stride);
            _mm256_storeu_ps(to, _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]));
            let to = block.to.add((i + 4) * block.to_stride);
            _mm256_storeu_ps(to, _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]));
        }
    }
}
