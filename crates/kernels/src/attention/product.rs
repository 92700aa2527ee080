//! The matrix product of attention: rows of a few numbers, broadcast, by vectors of queries.

use crate::simd::Simd;

/// How a word of a row and a word of a lane are multiplied and added. A word is four bytes.
pub(super) trait Dot<S: Simd>: Copy {
    /// `sum + a · b`. Must be `inline(always)`.
    fn dot(self, simd: S, a: S::F32, b: S::F32, sum: S::F32) -> S::F32;
}

/// Words are f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct F32Dot;

impl<S: Simd> Dot<S> for F32Dot {
    #[inline(always)]
    fn dot(self, simd: S, a: S::F32, b: S::F32, sum: S::F32) -> S::F32 {
        simd.mul_add(a, b, sum)
    }
}

/// `[rows, depth]` words, with any stride along a row and from row to row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lhs {
    pub(super) start: *const f32,
    pub(super) row_stride: usize,
    pub(super) step_stride: usize,
    pub(super) rows: usize,
}

/// `[depth, V vectors]` words, one row after another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhs {
    pub(super) start: *const f32,
    pub(super) depth: usize,
}

/// Takes the rows of the product.
pub(super) trait Sink<S: Simd, const V: usize> {
    /// Takes rows `row` to `row + R`; a row may come twice. Must be `inline(always)`.
    ///
    /// # Safety
    ///
    /// The rows are rows of [`Lhs`].
    unsafe fn take<const R: usize>(&mut self, simd: S, row: usize, rows: [[S::F32; V]; R]);
}

/// Passes `lhs · rhs` to `sink`, some rows at a time.
///
/// Each number is summed in the order of the depth, whatever else is in its tile. If the rows are no multiple of a
/// tile, the last tile starts earlier and computes some of them again.
///
/// # Safety
///
/// All words of both can be read.
#[inline(always)]
pub(super) unsafe fn product<S, D, K, const V: usize>(simd: S, dot: D, lhs: Lhs, rhs: Rhs, sink: &mut K)
where
    S: Simd,
    D: Dot<S>,
    K: Sink<S, V>,
{
    // Sixteen lanes come with thirty-two registers, eight with sixteen.
    let tile_rows = if S::WIDTH == 16 { 8 } else { 4 };
    let mut row = 0;
    // SAFETY: a tile of R rows starts R rows before the last or earlier, and at 0 or later.
    unsafe {
        while row < lhs.rows {
            let rest = lhs.rows - row;
            if tile_rows == 8 && rest > 4 && lhs.rows >= 8 {
                let start = row.min(lhs.rows - 8);
                sink.take(simd, start, tile::<S, D, 8, V>(simd, dot, lhs, rhs, start));
                row = start + 8;
            } else if lhs.rows >= 4 {
                let start = row.min(lhs.rows - 4);
                sink.take(simd, start, tile::<S, D, 4, V>(simd, dot, lhs, rhs, start));
                row = start + 4;
            } else {
                sink.take(simd, row, tile::<S, D, 1, V>(simd, dot, lhs, rhs, row));
                row += 1;
            }
        }
    }
}

/// # Safety
///
/// All words of both can be read, and `row + R` is at most the rows of `lhs`.
#[inline(always)]
unsafe fn tile<S, D, const R: usize, const V: usize>(
    simd: S,
    dot: D,
    lhs: Lhs,
    rhs: Rhs,
    row: usize,
) -> [[S::F32; V]; R]
where
    S: Simd,
    D: Dot<S>,
{
    let mut sums = [[simd.splat(0.0); V]; R];
    // SAFETY: the rows are inside `lhs`, the steps inside the depth of both.
    unsafe {
        let mut a = lhs.start.add(row * lhs.row_stride);
        let mut b = rhs.start;
        for _ in 0..rhs.depth {
            let mut lanes = [simd.splat(0.0); V];
            for (v, lanes) in lanes.iter_mut().enumerate() {
                *lanes = simd.load(b.add(v * S::WIDTH));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let word = simd.splat(a.add(r * lhs.row_stride).read_unaligned());
                for (sum, lanes) in sums.iter_mut().zip(lanes) {
                    *sum = dot.dot(simd, word, lanes, *sum);
                }
            }
            // The last step moves the pointers beyond the matrix, where they are not read.
            a = a.wrapping_add(lhs.step_stride);
            b = b.wrapping_add(V * S::WIDTH);
        }
    }
    sums
}

/// Stores scores, and tracks the highest of each query.
#[derive(Debug)]
pub(super) struct Scores<F, const V: usize> {
    pub(super) to: *mut f32,
    pub(super) highest: [F; V],
}

impl<S: Simd, const V: usize> Sink<S, V> for Scores<S::F32, V> {
    #[inline(always)]
    unsafe fn take<const R: usize>(&mut self, simd: S, row: usize, rows: [[S::F32; V]; R]) {
        for (r, vectors) in rows.into_iter().enumerate() {
            for (v, (highest, score)) in self.highest.iter_mut().zip(vectors).enumerate() {
                *highest = simd.max(score, *highest);
                // SAFETY: `to` has V vectors for each row of the left side.
                unsafe { simd.store(self.to.add(((row + r) * V + v) * S::WIDTH), score) };
            }
        }
    }
}

/// Stores weighted sums of values, divided by the sum of the query's probabilities.
#[derive(Debug)]
pub(super) struct Contexts<F, const V: usize> {
    pub(super) to: *mut f32,
    pub(super) inverse: [F; V],
}

impl<S: Simd, const V: usize> Sink<S, V> for Contexts<S::F32, V> {
    #[inline(always)]
    unsafe fn take<const R: usize>(&mut self, simd: S, row: usize, rows: [[S::F32; V]; R]) {
        for (r, vectors) in rows.into_iter().enumerate() {
            for (v, (inverse, sum)) in self.inverse.into_iter().zip(vectors).enumerate() {
                // SAFETY: `to` has V vectors for each row of the left side.
                unsafe { simd.store(self.to.add(((row + r) * V + v) * S::WIDTH), simd.mul(sum, inverse)) };
            }
        }
    }
}
