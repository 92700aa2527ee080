//! Multi-head self-attention over a packed batch.
//!
//! A unit of work is one head of one sequence. All forms keep a block of queries in the lanes of vectors: the scores
//! of a key are one vector, so the maximum, the sum and the division of softmax are lane by lane, and the keys of a
//! sequence need no padding. The context of a query is computed in one order, whatever the other queries are.
//!
//! | form | scores and values | softmax |
//! |---|---|---|
//! | portable, AVX2, AVX-512 | multiply-add of f32 | f32 |
//! | AVX-512 BF16, on bf16 | dot products of pairs of bf16 | f32, probabilities rounded to bf16 |
//! | AMX, on bf16 | tiles of bf16 | as above |
//!
//! Without bf16 instructions, a batch in bf16 is widened head by head, as its rows are gathered.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod bf16_pairs;
mod floats;
mod packed;
#[cfg(target_arch = "x86_64")]
mod pairs;
mod product;
mod rows;
#[cfg(test)]
mod tests;

use half::bf16;

use self::packed::Packed;
use crate::Isa;

/// Multi-head self-attention in which every token of a sequence attends to the whole sequence.
///
/// `qkv`: `[total_tokens, 3 · hidden]`, where a row holds the token's queries, keys and values one after another, each
/// as `heads` slices of `head_size`. `cu_seqlens`: `[sequences + 1]`, ascending from 0 to `total_tokens`. `context`:
/// `[total_tokens, hidden]`, where `hidden = heads · head_size`. No token attends outside its own sequence, and its
/// context has the same bits whatever other sequences are in the batch.
///
/// `softmax(scale · Q Kᵀ) V`; scores and softmax are in f32, with a row's maximum subtracted. A NaN, or a score that
/// overflows upwards, makes the contexts that depend on it NaN.
///
/// Source: `XLMRobertaSelfAttention` in transformers 5.23, with `scale = 1 / sqrt(head_size)`.
///
/// ```
/// use polylance_kernels::{Isa, SelfAttention};
///
/// let attention = SelfAttention::new(1, 2, 0.5);
/// // Two sequences, of one and of two tokens: queries, keys and values of two numbers each.
/// let qkv = [1., 1., 1., 1., 7., 8., 0., 0., 1., 1., 2., 4., 0., 0., 5., 5., 4., 8.];
/// let mut context = [0.0; 6];
/// attention.forward_f32(Isa::detect(), &qkv, &[0, 1, 3], &mut context);
/// assert_eq!(context, [7., 8., 3., 6., 3., 6.]);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SelfAttention {
    heads: usize,
    head_size: usize,
    scale: f32,
}

impl SelfAttention {
    /// Attention of `heads` heads of `head_size` numbers, with scores multiplied by `scale`.
    ///
    /// # Panics
    ///
    /// `heads` or `head_size` is 0, or `scale` is not a positive number.
    pub fn new(heads: usize, head_size: usize, scale: f32) -> Self {
        assert!(heads > 0 && head_size > 0, "attention has heads, and a head has a size");
        assert!(scale > 0.0 && scale.is_finite(), "scores are scaled by a positive number");
        Self { heads, head_size, scale }
    }

    /// Numbers in a row of the context.
    pub fn hidden(&self) -> usize {
        self.heads * self.head_size
    }

    /// Computes the contexts in f32.
    ///
    /// # Panics
    ///
    /// `cu_seqlens` does not ascend from 0, or `qkv` or `context` has a different number of rows.
    pub fn forward_f32(&self, isa: Isa, qkv: &[f32], cu_seqlens: &[u32], context: &mut [f32]) {
        floats::forward(isa, &Packed::new(self, qkv, cu_seqlens, context));
    }

    /// Computes the contexts in bf16, with an error of a few roundings.
    ///
    /// # Panics
    ///
    /// As for [`SelfAttention::forward_f32`].
    pub fn forward_bf16(&self, isa: Isa, qkv: &[bf16], cu_seqlens: &[u32], context: &mut [bf16]) {
        let packed = Packed::new(self, qkv, cu_seqlens, context);
        // The instructions multiply pairs of numbers: a head of an odd size would have half a pair.
        #[cfg(target_arch = "x86_64")]
        if self.head_size.is_multiple_of(2)
            && let Some(simd) = crate::simd::Avx512Bf16::try_new(isa)
        {
            return match amx::TileProof::try_new(isa) {
                Some(tiles) => amx::forward(simd, tiles, &packed),
                None => bf16_pairs::forward(simd, &packed),
            };
        }
        floats::forward(isa, &packed);
    }

    /// The factor that makes scores exponents of two instead of e.
    fn exponent_scale(&self) -> f32 {
        self.scale * std::f32::consts::LOG2_E
    }
}
