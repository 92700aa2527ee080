//! Attention in f32, on vectors of any width, to a batch of f32 or bf16.

use std::cell::RefCell;

use super::{
    packed::{Head, Packed},
    product::{Contexts, F32Dot, Lhs, Rhs, Scores, product},
    rows::{gather, scatter},
};
use crate::{
    Isa,
    aligned::Scratch,
    element::Element,
    simd::{Kernel, Simd, Transpose, run},
};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// The largest number of vectors of queries in a block.
const MAX_QUERY_VECTORS: usize = 2;

/// Computes the contexts of a batch.
pub(super) fn forward<E: Element>(isa: Isa, batch: &Packed<'_, E>) {
    // The scratch is borrowed here because a closure would not be compiled for the instructions.
    SCRATCH.with_borrow_mut(|scratch| run(isa, Forward { batch, scratch }));
}

struct Forward<'a, 'b, E> {
    batch: &'a Packed<'b, E>,
    scratch: &'a mut Scratch,
}

impl<E: Element> Kernel for Forward<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut work = Workspace::new(simd, self.scratch, self.batch.longest(), self.batch.head_size());
        for head in self.batch.heads() {
            // SAFETY: `heads` makes heads whose rows are inside the batch, and none is longer than the longest.
            unsafe { attend(simd, &head, &mut work) };
        }
    }
}

/// Memory for a head, and for a block of its queries.
#[derive(Debug)]
struct Workspace<'a> {
    /// `[tokens, size]` each.
    keys: &'a mut [f32],
    values: &'a mut [f32],
    /// Queries of a block, then their contexts: `[MAX_QUERY_VECTORS vectors, size]`.
    rows: &'a mut [f32],
    /// The queries again: `[size, MAX_QUERY_VECTORS vectors]`.
    queries: &'a mut [f32],
    /// Scores, then probabilities: `[tokens, MAX_QUERY_VECTORS vectors]`.
    scores: &'a mut [f32],
    /// `[size, MAX_QUERY_VECTORS vectors]`.
    contexts: &'a mut [f32],
}

impl<'a> Workspace<'a> {
    /// The numbers of each field, for heads of `size` in sequences of at most `tokens`.
    #[inline(always)]
    fn numbers<S: Simd>(_: S, tokens: usize, size: usize) -> [usize; 6] {
        let lanes = MAX_QUERY_VECTORS * S::WIDTH;
        [tokens * size, tokens * size, lanes * size, size * lanes, tokens * lanes, size * lanes]
    }

    #[inline(always)]
    fn new<S: Simd>(simd: S, scratch: &'a mut Scratch, tokens: usize, size: usize) -> Self {
        let numbers = Self::numbers(simd, tokens, size);
        let mut slices = scratch.slices(&numbers.map(|numbers| numbers * size_of::<f32>()));
        let [keys, values, rows, queries, scores, contexts] = numbers.map(|numbers| slices.take(numbers));
        Self { keys, values, rows, queries, scores, contexts }
    }
}

/// Computes the contexts of one head, one block of queries at a time.
///
/// # Safety
///
/// The rows of the head can be read and those of its context written, and `work` has room for it.
#[inline(always)]
unsafe fn attend<S: Simd, E: Element>(simd: S, head: &Head<E>, work: &mut Workspace<'_>) {
    let all = [head.tokens, head.size];
    let mut query = 0;
    // SAFETY: the caller's promise, and `query` is a token of the head.
    unsafe {
        gather(simd, head.keys, head.stride, all, work.keys.as_mut_ptr());
        gather(simd, head.values, head.stride, all, work.values.as_mut_ptr());
        while query < head.tokens {
            if head.tokens - query > S::WIDTH {
                attend_block::<S, E, 2>(simd, head, query, work);
                query += 2 * S::WIDTH;
            } else {
                attend_block::<S, E, 1>(simd, head, query, work);
                query += S::WIDTH;
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
unsafe fn attend_block<S: Simd, E: Element, const V: usize>(
    simd: S,
    head: &Head<E>,
    query: usize,
    work: &mut Workspace<'_>,
) {
    let (lanes, size) = (S::WIDTH * V, head.size);
    let block = [lanes.min(head.tokens - query), size];
    let rows = work.rows.as_mut_ptr();
    // SAFETY: `work` has room for `lanes` queries of the head, and has its keys and values.
    unsafe {
        gather(simd, head.queries.add(query * head.stride), head.stride, block, rows);
        let queries = work.queries.as_mut_ptr();
        transpose(simd, block, [rows, queries], [size, lanes]);
        scale(simd, queries, size * V, head.exponent_scale);

        let keys = Lhs { start: work.keys.as_ptr(), row_stride: size, step_stride: 1, rows: head.tokens };
        let queries = Rhs { start: queries, depth: size };
        let scores = work.scores.as_mut_ptr();
        let mut sink = Scores::<S::F32, V> { to: scores, highest: [simd.splat(f32::NEG_INFINITY); V] };
        product(simd, F32Dot, keys, queries, &mut sink);

        let inverse = softmax::<S, E, V>(simd, scores, head.tokens, sink.highest);

        let values = Lhs { start: work.values.as_ptr(), row_stride: 1, step_stride: size, rows: size };
        let probabilities = Rhs { start: scores, depth: head.tokens };
        let contexts = work.contexts.as_mut_ptr();
        product(simd, F32Dot, values, probabilities, &mut Contexts::<S::F32, V> { to: contexts, inverse });

        transpose(simd, [size, block[0]], [contexts, rows], [lanes, size]);
        scatter(simd, rows, block, head.context.add(query * head.context_stride), head.context_stride);
    }
}

/// Transposes a block of any size: `[rows, columns]`, rows `from_stride` apart, to rows `to_stride` apart.
///
/// # Safety
///
/// The block can be read, and its transpose written.
#[inline(always)]
unsafe fn transpose<S: Simd>(
    simd: S,
    [rows, columns]: [usize; 2],
    [from, to]: [*mut f32; 2],
    [from_stride, to_stride]: [usize; 2],
) {
    for row in (0..rows).step_by(S::WIDTH) {
        for column in (0..columns).step_by(S::WIDTH) {
            // SAFETY: the caller's promise; blocks end with the last row and the last column.
            unsafe {
                simd.transpose(Transpose {
                    from: from.add(row * from_stride + column),
                    from_stride,
                    to: to.add(column * to_stride + row),
                    to_stride,
                    rows: (rows - row).min(S::WIDTH),
                    columns: (columns - column).min(S::WIDTH),
                });
            }
        }
    }
}

/// Scales the queries instead of the scores: the highest score minus itself is then exactly 0.
///
/// # Safety
///
/// `queries` is `vectors` vectors.
#[inline(always)]
unsafe fn scale<S: Simd>(simd: S, queries: *mut f32, vectors: usize, factor: f32) {
    for vector in 0..vectors {
        // SAFETY: the caller's promise.
        unsafe {
            let at = queries.add(vector * S::WIDTH);
            simd.store(at, simd.mul(simd.load(at), simd.splat(factor)));
        }
    }
}

/// Turns scores, which are exponents of two, into probabilities not yet divided by their sums, and returns the inverses
/// of the sums.
///
/// # Safety
///
/// `scores` is `[tokens, V vectors]`.
#[inline(always)]
unsafe fn softmax<S: Simd, E: Element, const V: usize>(
    simd: S,
    scores: *mut f32,
    tokens: usize,
    highest: [S::F32; V],
) -> [S::F32; V] {
    let mut sums = [simd.splat(0.0); V];
    for token in 0..tokens {
        for (v, (sum, highest)) in sums.iter_mut().zip(highest).enumerate() {
            // SAFETY: the token's V vectors are inside the scores.
            unsafe {
                let at = scores.add((token * V + v) * S::WIDTH);
                let probability = E::exp2(simd, simd.sub(simd.load(at), highest));
                simd.store(at, probability);
                *sum = simd.add(*sum, probability);
            }
        }
    }
    for sum in &mut sums {
        *sum = simd.div(simd.splat(1.0), *sum);
    }
    sums
}
