//! Attention in f32, on vectors of any width.

use std::cell::RefCell;

use super::{
    packed::{Head, Packed},
    product::{Contexts, Floats, Left, Right, Scores, product},
};
use crate::{
    Isa,
    aligned::{Room, Scratch},
    lanes::{Kernel, Lanes, Transpose, run},
    math::exp2,
};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// Most vectors of queries in a block.
const VECTORS: usize = 2;

/// Attends to a batch.
pub(super) fn forward(isa: Isa, batch: &Packed<'_, f32>) {
    // The scratch is borrowed here because a closure would not be compiled for the instructions.
    SCRATCH.with_borrow_mut(|scratch| run(isa, Forward { batch, scratch }));
}

struct Forward<'a, 'b> {
    batch: &'a Packed<'b, f32>,
    scratch: &'a mut Scratch,
}

impl Kernel for Forward<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, simd: S) {
        let (tokens, size) = (self.batch.longest(), self.batch.head_size());
        let mut room = self.scratch.room(&Work::bytes(simd, tokens, size));
        let mut work = Work::new(simd, &mut room, tokens, size);
        for head in self.batch.heads() {
            // SAFETY: `heads` makes heads whose rows are inside the batch, and none is longer than the longest.
            unsafe { attend(simd, &head, &mut work) };
        }
    }
}

/// Room for a block of queries: all `[.., VECTORS vectors]`.
#[derive(Debug)]
pub(super) struct Work<'a> {
    /// A row for each number of the head.
    queries: &'a mut [f32],
    /// A row for each token: scores, then probabilities.
    scores: &'a mut [f32],
    /// A row for each number of the head.
    contexts: &'a mut [f32],
}

impl<'a> Work<'a> {
    /// What to ask of the scratch for heads of `size` in sequences of up to `tokens`.
    #[inline(always)]
    pub(super) fn bytes<S: Lanes>(_: S, tokens: usize, size: usize) -> [usize; 3] {
        [size, tokens, size].map(|rows| rows * VECTORS * S::WIDTH * size_of::<f32>())
    }

    #[inline(always)]
    pub(super) fn new<S: Lanes>(_: S, room: &mut Room<'a>, tokens: usize, size: usize) -> Self {
        let row = VECTORS * S::WIDTH;
        Self { queries: room.take(size * row), scores: room.take(tokens * row), contexts: room.take(size * row) }
    }
}

/// Attends for one head, block by block of its queries.
///
/// # Safety
///
/// The rows of the head can be read and those of its context written, and `work` has room for it.
#[inline(always)]
pub(super) unsafe fn attend<S: Lanes>(simd: S, head: &Head<f32>, work: &mut Work<'_>) {
    let mut query = 0;
    while query < head.tokens {
        // SAFETY: the caller's promise, and `query` is a token of the head.
        unsafe {
            if head.tokens - query > S::WIDTH {
                block::<S, 2>(simd, head, query, work);
                query += 2 * S::WIDTH;
            } else {
                block::<S, 1>(simd, head, query, work);
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
unsafe fn block<S: Lanes, const V: usize>(simd: S, head: &Head<f32>, query: usize, work: &mut Work<'_>) {
    let lanes = S::WIDTH * V;
    // SAFETY: `work` has `lanes` or more words in a row, for each number of the head and each of its tokens.
    unsafe {
        for first in (0..lanes).step_by(S::WIDTH) {
            let from = head.queries.add((query + first) * head.stride);
            let to = work.queries.as_mut_ptr().add(first);
            let rows = (head.tokens - query - first).min(S::WIDTH);
            for number in (0..head.size).step_by(S::WIDTH) {
                simd.transpose(Transpose {
                    from: from.add(number),
                    from_stride: head.stride,
                    to: to.add(number * lanes),
                    to_stride: lanes,
                    rows,
                    columns: (head.size - number).min(S::WIDTH),
                });
            }
        }
        scale(simd, work.queries.as_mut_ptr(), head.size * V, head.exponent_scale);

        let keys = Left { start: head.keys, row: head.stride, step: 1, rows: head.tokens };
        let queries = Right { start: work.queries.as_ptr(), depth: head.size };
        let scores = work.scores.as_mut_ptr();
        let mut sink = Scores::<S::F32, V> { to: scores, highest: [simd.splat(f32::NEG_INFINITY); V] };
        product(simd, Floats, keys, queries, &mut sink);

        let inverse = softmax(simd, scores, head.tokens, sink.highest);

        let values = Left { start: head.values, row: 1, step: head.stride, rows: head.size };
        let probabilities = Right { start: scores, depth: head.tokens };
        let contexts = work.contexts.as_mut_ptr();
        product(simd, Floats, values, probabilities, &mut Contexts::<S::F32, V> { to: contexts, inverse });

        for first in (0..lanes).step_by(S::WIDTH) {
            let columns = (head.tokens - query - first).min(S::WIDTH);
            let to = head.context.add((query + first) * head.context_stride);
            for number in (0..head.size).step_by(S::WIDTH) {
                simd.transpose(Transpose {
                    from: contexts.add(number * lanes + first),
                    from_stride: lanes,
                    to: to.add(number),
                    to_stride: head.context_stride,
                    rows: (head.size - number).min(S::WIDTH),
                    columns,
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
unsafe fn softmax<S: Lanes, const V: usize>(
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
                let probability = exp2(simd, simd.sub(simd.load(at), highest));
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
