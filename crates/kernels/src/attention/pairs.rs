//! Steps on pairs of bf16, one pair per lane, shared by the forms that use bf16 instructions.

use std::{
    arch::x86_64::{
        __m512, __m512bh, __m512i, _mm256_maskz_loadu_epi16, _mm512_castsi512_ps, _mm512_cvtepu16_epi32,
        _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_mask_storeu_epi32, _mm512_or_si512, _mm512_permutexvar_epi16,
        _mm512_set_epi16, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_slli_epi32,
    },
    mem::transmute,
};

use half::bf16;

use super::{packed::Head, product::Dot, rows::scatter};
use crate::{
    math::exp2_bf16,
    simd::{Avx512Bf16, Simd, Transpose},
};

/// Simd of a vector.
pub(super) const LANES: usize = 16;

/// A pair of bf16, both 1.0.
const ONE_PAIR: i32 = 0x3F80_3F80;

/// Words are pairs of bf16.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairDot;

impl Dot<Avx512Bf16> for PairDot {
    #[inline(always)]
    fn dot(self, _: Avx512Bf16, a: __m512, b: __m512, sum: __m512) -> __m512 {
        // SAFETY: the vector type is the proof that the CPU has the instruction; any bits are pairs of bf16.
        unsafe { _mm512_dpbf16_ps(sum, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b)) }
    }
}

/// Turns scores `[tokens, V vectors]` into pairs of probabilities `[tokens / 2, V vectors]` in the same place, not yet
/// divided by their sums, and returns the inverses of the sums. A last odd token is paired with zero.
///
/// The rounded probabilities are summed, so that those of each query still add up to 1.
///
/// # Safety
///
/// `scores` has that size.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[inline]
pub(super) unsafe fn softmax<const V: usize>(
    simd: Avx512Bf16,
    scores: *mut f32,
    tokens: usize,
    exponent_scale: f32,
    highest: [__m512; V],
) -> [__m512; V] {
    let scale = simd.splat(exponent_scale);
    // No multiply-add with `-highest · scale`: its rounding error is huge for huge scores.
    // SAFETY: callers name a vector of a token.
    let probability = |token: usize, v: usize| unsafe {
        let score = simd.load(scores.add((token * V + v) * LANES));
        exp2_bf16(simd, simd.mul(simd.sub(score, highest[v]), scale))
    };
    let mut sums = [simd.splat(0.0); V];
    for pair in 0..tokens / 2 {
        for (v, sum) in sums.iter_mut().enumerate() {
            let pairs = interleave(probability(2 * pair, v), probability(2 * pair + 1, v));
            *sum = PairDot.dot(simd, pairs, ones(), *sum);
            // SAFETY: the pair is stored over a token that was read before.
            unsafe { simd.store(scores.add((pair * V + v) * LANES), pairs) };
        }
    }
    if !tokens.is_multiple_of(2) {
        for (v, sum) in sums.iter_mut().enumerate() {
            let pairs = interleave(probability(tokens - 1, v), simd.splat(0.0));
            *sum = PairDot.dot(simd, pairs, ones(), *sum);
            // SAFETY: as above.
            unsafe { simd.store(scores.add((tokens / 2 * V + v) * LANES), pairs) };
        }
    }
    for sum in &mut sums {
        *sum = simd.div(simd.splat(1.0), *sum);
    }
    sums
}

#[target_feature(enable = "avx512f")]
#[inline]
fn ones() -> __m512 {
    _mm512_castsi512_ps(_mm512_set1_epi32(ONE_PAIR))
}

/// Rounds both and pairs their lanes, `first` in the low halves.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
fn interleave(first: __m512, second: __m512) -> __m512 {
    let order = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1,
        16, 0,
    );
    let rounded = _mm512_cvtne2ps_pbh(second, first);
    // SAFETY: both are 64 bytes without invalid values.
    let rounded = unsafe { transmute::<__m512bh, __m512i>(rounded) };
    _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, rounded))
}

/// Pairs the values of the tokens from `2 · first` on: `[count, size]` words, each with a number of two tokens. Tokens
/// beyond the last count as zero.
///
/// # Safety
///
/// The rows of the head can be read, and `to` has room.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) unsafe fn pair_values(head: &Head<bf16>, first: usize, count: usize, to: *mut f32) {
    for pair in 0..count {
        let token = 2 * (first + pair);
        for number in (0..head.size).step_by(LANES) {
            let mask = mask(head.size - number);
            // SAFETY: callers name a token of the head, and the mask ends at its last number.
            let row = |token: usize| unsafe {
                let from = head.values.add(token * head.stride + number);
                _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast()))
            };
            let low = if token < head.tokens { row(token) } else { _mm512_setzero_si512() };
            let high = if token + 1 < head.tokens { row(token + 1) } else { _mm512_setzero_si512() };
            let pairs = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
            // SAFETY: the caller's promise, and the mask ends at the row's last word.
            unsafe { _mm512_mask_storeu_epi32(to.add(pair * head.size + number).cast(), mask, pairs) };
        }
    }
}

/// A mask of the first `lanes` lanes, at most sixteen.
#[inline]
pub(super) fn mask(lanes: usize) -> u16 {
    if lanes >= LANES { u16::MAX } else { (1 << lanes) - 1 }
}

/// Transposes the queries from `first` on, at most sixteen, to words `[size / 2, stride]`.
///
/// # Safety
///
/// The rows of the head can be read, `first` is one of them, and `to` has room.
#[inline(always)]
pub(super) unsafe fn transpose_queries(
    simd: Avx512Bf16,
    head: &Head<bf16>,
    first: usize,
    to: *mut f32,
    to_stride: usize,
) {
    for word in (0..head.size / 2).step_by(LANES) {
        // SAFETY: the caller's promise; the block ends at the last query and the last number.
        unsafe {
            simd.transpose(Transpose {
                from: words(head.queries.add(first * head.stride)).add(word),
                from_stride: head.stride / 2,
                to: to.add(word * to_stride),
                to_stride,
                rows: (head.tokens - first).min(LANES),
                columns: (head.size / 2 - word).min(LANES),
            });
        }
    }
}

/// Transposes and rounds the contexts of the queries from `first` on, at most sixteen, from `[size, stride]`. `rows` is
/// memory for the transposed contexts.
///
/// # Safety
///
/// The rows of the head's context can be written, `first` is one of them, and `rows` has room for sixteen.
#[inline(always)]
pub(super) unsafe fn write_contexts(
    simd: Avx512Bf16,
    head: &Head<bf16>,
    first: usize,
    contexts: *const f32,
    stride: usize,
    rows: *mut f32,
) {
    let queries = (head.tokens - first).min(LANES);
    // SAFETY: the caller's promise; the blocks end at the last query and the last number.
    unsafe {
        for number in (0..head.size).step_by(LANES) {
            simd.transpose(Transpose {
                from: contexts.add(number * stride),
                from_stride: stride,
                to: rows.add(number),
                to_stride: head.size,
                rows: (head.size - number).min(LANES),
                columns: queries,
            });
        }
        let to = head.context.add(first * head.context_stride);
        scatter(simd, rows, [queries, head.size], to, head.context_stride);
    }
}

/// Pairs of numbers as words. They are read unaligned, so they need no more alignment than the numbers.
#[inline(always)]
pub(super) fn words(numbers: *const bf16) -> *const f32 {
    numbers.cast::<u8>().cast()
}
