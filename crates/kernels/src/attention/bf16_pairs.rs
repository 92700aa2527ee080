//! Attention in bf16 by dot products of pairs, on AVX-512.

use std::cell::RefCell;

use half::bf16;

use super::{
    packed::{Head, Packed},
    pairs::{LANES, PairDot, pair_values, softmax, transpose_queries, words, write_contexts},
    product::{Contexts, Lhs, Rhs, Scores, product},
};
use crate::{
    aligned::Scratch,
    simd::{Avx512Bf16, Simd},
};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// The largest number of vectors of queries in a block.
const MAX_QUERY_VECTORS: usize = 2;

/// Computes the contexts of a batch. The size of a head is even.
pub(super) fn forward(simd: Avx512Bf16, batch: &Packed<'_, bf16>) {
    // SAFETY: `simd` is the proof that the CPU has the instructions.
    SCRATCH.with_borrow_mut(|scratch| unsafe { forward_with(simd, batch, scratch) });
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
fn forward_with(simd: Avx512Bf16, batch: &Packed<'_, bf16>, scratch: &mut Scratch) {
    let (tokens, size) = (batch.longest(), batch.head_size());
    let block = MAX_QUERY_VECTORS * LANES;
    let lens = [size / 2 * block, tokens * block, size * block, tokens.div_ceil(2) * size, LANES * size];
    let mut slices = scratch.slices(&lens.map(|len| len * size_of::<f32>()));
    let [queries, scores, contexts, values, rows] = lens.map(|len| slices.take::<f32>(len).as_mut_ptr());
    let work = Workspace { queries, scores, contexts, values, rows };
    for head in batch.heads() {
        // SAFETY: `heads` makes heads whose rows are inside the batch, and none is longer than the longest, which
        // `work` has room for.
        unsafe { attend(simd, &head, work) };
    }
}

/// Memory for a block of queries, and for the values of a head.
#[derive(Debug, Clone, Copy)]
struct Workspace {
    /// `[size / 2, MAX_QUERY_VECTORS vectors]` pairs.
    queries: *mut f32,
    /// `[tokens, MAX_QUERY_VECTORS vectors]`: scores, then pairs of probabilities.
    scores: *mut f32,
    /// `[size, MAX_QUERY_VECTORS vectors]`.
    contexts: *mut f32,
    /// `[tokens / 2, size]` pairs.
    values: *mut f32,
    /// `[16, size]`.
    rows: *mut f32,
}

/// # Safety
///
/// The rows of the head can be read and those of its context written, and `work` has room for it.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn attend(simd: Avx512Bf16, head: &Head<bf16>, work: Workspace) {
    let mut query = 0;
    // SAFETY: the caller's promise, and every vector of a block has a token in its first lane.
    unsafe {
        pair_values(head, 0, head.tokens.div_ceil(2), work.values);
        while query < head.tokens {
            if head.tokens - query > LANES {
                attend_block::<2>(simd, head, query, work);
                query += 2 * LANES;
            } else {
                attend_block::<1>(simd, head, query, work);
                query += LANES;
            }
        }
    }
}

/// Computes the contexts of the queries in V vectors, from `query` on.
///
/// # Safety
///
/// As for `attend`, and each of the V vectors has a token of the head in its first lane.
#[inline(always)]
unsafe fn attend_block<const V: usize>(simd: Avx512Bf16, head: &Head<bf16>, query: usize, work: Workspace) {
    let lanes = V * LANES;
    // SAFETY: the caller's promise.
    unsafe {
        for first in (0..lanes).step_by(LANES) {
            transpose_queries(simd, head, query + first, work.queries.add(first), lanes);
        }

        let keys = Lhs { start: words(head.keys), row_stride: head.stride / 2, step_stride: 1, rows: head.tokens };
        let queries = Rhs { start: work.queries, depth: head.size / 2 };
        let mut sink = Scores { to: work.scores, highest: [simd.splat(f32::NEG_INFINITY); V] };
        product(simd, PairDot, keys, queries, &mut sink);

        let inverse = softmax(simd, work.scores, head.tokens, head.exponent_scale, sink.highest);

        let values = Lhs { start: work.values, row_stride: 1, step_stride: head.size, rows: head.size };
        let probabilities = Rhs { start: work.scores, depth: head.tokens.div_ceil(2) };
        product(simd, PairDot, values, probabilities, &mut Contexts { to: work.contexts, inverse });

        for first in (0..lanes).step_by(LANES) {
            write_contexts(simd, head, query + first, work.contexts.add(first), lanes, work.rows);
        }
    }
}
