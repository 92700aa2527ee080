//! Attention in f32, on vectors of any width, to a batch of f32 or bf16.

use std::cell::RefCell;

use super::{
    packed::{Head, Packed},
    product::{Contexts, Floats, Left, Right, Scores, product},
    rows::{gather, scatter},
};
use crate::{
    Isa,
    aligned::Scratch,
    lanes::{Kernel, Lanes, Transpose, run},
    number::Number,
};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// Most vectors of queries in a block.
const VECTORS: usize = 2;

/// Attends to a batch.
pub(super) fn forward<N: Number>(isa: Isa, batch: &Packed<'_, N>) {
    // The scratch is borrowed here because a closure would not be compiled for the instructions.
    SCRATCH.with_borrow_mut(|scratch| run(isa, Forward { batch, scratch }));
}

struct Forward<'a, 'b, N> {
    batch: &'a Packed<'b, N>,
    scratch: &'a mut Scratch,
}

impl<N: Number> Kernel for Forward<'_, '_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, simd: S) {
        let mut work = Work::new(simd, self.scratch, self.batch.longest(), self.batch.head_size());
        for head in self.batch.heads() {
            // SAFETY: `heads` makes heads whose rows are inside the batch, and none is longer than the longest.
            unsafe { attend(simd, &head, &mut work) };
        }
    }
}

/// Room for a head, and for a block of its queries.
#[derive(Debug)]
struct Work<'a> {
    /// `[tokens, size]` each.
    keys: &'a mut [f32],
    values: &'a mut [f32],
    /// Queries of a block, then their contexts: `[VECTORS vectors, size]`.
    rows: &'a mut [f32],
    /// The queries again: `[size, VECTORS vectors]`.
    queries: &'a mut [f32],
    /// Scores, then probabilities: `[tokens, VECTORS vectors]`.
    scores: &'a mut [f32],
    /// `[size, VECTORS vectors]`.
    contexts: &'a mut [f32],
}

impl<'a> Work<'a> {
    /// Numbers of each part, for heads of `size` in sequences of up to `tokens`.
    #[inline(always)]
    fn numbers<S: Lanes>(_: S, tokens: usize, size: usize) -> [usize; 6] {
        let lanes = VECTORS * S::WIDTH;
        [tokens * size, tokens * size, lanes * size, size * lanes, tokens * lanes, size * lanes]
    }

    #[inline(always)]
    fn new<S: Lanes>(simd: S, scratch: &'a mut Scratch, tokens: usize, size: usize) -> Self {
        let numbers = Self::numbers(simd, tokens, size);
        let mut room = scratch.room(&numbers.map(|numbers| numbers * size_of::<f32>()));
        let [keys, values, rows, queries, scores, contexts] = numbers.map(|numbers| room.take(numbers));
        Self { keys, values, rows, queries, scores, contexts }
    }
}

/// Attends for one head, block by block of its queries.
///
/// # Safety
///
/// The rows of the head can be read and those of its context written, and `work` has room for it.
#[inline(always)]
unsafe fn attend<S: Lanes, N: Number>(simd: S, head: &Head<N>, work: &mut Work<'_>) {
    let all = [head.tokens, head.size];
    let mut query = 0;
    // SAFETY: the caller's promise, and `query` is a token of the head.
    unsafe {
        gather(simd, head.keys, head.stride, all, work.keys.as_mut_ptr());
        gather(simd, head.values, head.stride, all, work.values.as_mut_ptr());
        while query < head.tokens {
            if head.tokens - query > S::WIDTH {
                block::<S, N, 2>(simd, head, query, work);
                query += 2 * S::WIDTH;
            } else {
                block::<S, N, 1>(simd, head, query, work);
                query += S::WIDTH;
            }
        }
    }
}

/// Attends for the queries from `query` on that V vectors hold.
///
/// # Safety
///
/// As for `attend`, and each of the V vectors has a token of the head in its first lane.
#[inline(always)]
unsafe fn block<S: Lanes, N: Number, const V: usize>(simd: S, head: &Head<N>, query: usize, work: &mut Work<'_>) {
    let (lanes, size) = (S::WIDTH * V, head.size);
    let block = [lanes.min(head.tokens - query), size];
    let rows = work.rows.as_mut_ptr();
    // SAFETY: `work` has room for `lanes` queries of the head, and has its keys and values.
    unsafe {
        gather(simd, head.queries.add(query * head.stride), head.stride, block, rows);
        let queries = work.queries.as_mut_ptr();
        transpose(simd, block, [rows, queries], [size, lanes]);
        scale(simd, queries, size * V, head.exponent_scale);

        let keys = Left { start: work.keys.as_ptr(), row: size, step: 1, rows: head.tokens };
        let queries = Right { start: queries, depth: size };
        let scores = work.scores.as_mut_ptr();
        let mut sink = Scores::<S::F32, V> { to: scores, highest: [simd.splat(f32::NEG_INFINITY); V] };
        product(simd, Floats, keys, queries, &mut sink);

        let inverse = softmax::<S, N, V>(simd, scores, head.tokens, sink.highest);

        let values = Left { start: work.values.as_ptr(), row: 1, step: size, rows: size };
        let probabilities = Right { start: scores, depth: head.tokens };
        let contexts = work.contexts.as_mut_ptr();
        product(simd, Floats, values, probabilities, &mut Contexts::<S::F32, V> { to: contexts, inverse });

        transpose(simd, [size, block[0]], [contexts, rows], [lanes, size]);
        scatter(simd, rows, block, head.context.add(query * head.context_stride), head.context_stride);
    }
}

/// Transposes a block of any size: `[rows, columns]`, rows `from_stride` apart, to rows `to_stride` apart.
///
/// # Safety
///
/// All of it can be read, and written transposed.
#[inline(always)]
unsafe fn transpose<S: Lanes>(
    simd: S,
    [rows, columns]: [usize; 2],
    [from, to]: [*mut f32; 2],
    [from_stride, to_stride]: [usize; 2],
) {
    for row in (0..rows).step_by(S::WIDTH) {
        for column in (0..columns).step_by(S::WIDTH) {
            // SAFETY: the caller's promise; parts end with the last row and the last column.
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

/// Scales the queries, so that scores need not be: a score less the highest is then exactly 0 for the highest.
///
/// # Safety
///
/// `queries` is `vectors` vectors.
#[inline(always)]
unsafe fn scale<S: Lanes>(simd: S, queries: *mut f32, vectors: usize, factor: f32) {
    for vector in 0..vectors {
        // SAFETY: the caller's promise.
        unsafe {
            let at = queries.add(vector * S::WIDTH);
            simd.store(at, simd.mul(simd.load(at), simd.splat(factor)));
        }
    }
}

/// Turns scores, which are powers of two, into probabilities not yet divided by their sums, and returns the inverses of the sums.
///
/// # Safety
///
/// `scores` is `[tokens, V vectors]`.
#[inline(always)]
unsafe fn softmax<S: Lanes, N: Number, const V: usize>(
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
                let probability = N::exp2(simd, simd.sub(simd.load(at), highest));
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
