//! Sums over a row, in one order for each width of vectors.

use crate::lanes::{Lanes, Portable};

/// What is summed for each number.
pub(crate) trait Term: Copy {
    /// Must be `inline(always)`.
    fn of<S: Lanes>(self, simd: S, x: S::F32) -> S::F32;
}

/// The number itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value;

impl Term for Value {
    #[inline(always)]
    fn of<S: Lanes>(self, _: S, x: S::F32) -> S::F32 {
        x
    }
}

/// The square of its distance from a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SquaredDistance {
    pub(crate) from: f32,
}

impl Term for SquaredDistance {
    #[inline(always)]
    fn of<S: Lanes>(self, simd: S, x: S::F32) -> S::F32 {
        let distance = simd.sub(x, simd.splat(self.from));
        simd.mul(distance, distance)
    }
}

/// Sums `term` over `row` in four vectors: enough to hide an addition's latency, and closer to the true sum than one
/// running total.
#[inline(always)]
pub(crate) fn sum<S: Lanes, T: Term>(simd: S, row: &[f32], term: T) -> f32 {
    let mut sums = [simd.splat(0.0); 4];
    let mut fours = row.chunks_exact(4 * S::WIDTH);
    for four in &mut fours {
        for (sum, x) in sums.iter_mut().zip(four.chunks_exact(S::WIDTH)) {
            // SAFETY: the chunk is one vector.
            *sum = simd.add(*sum, term.of(simd, unsafe { simd.load(x.as_ptr()) }));
        }
    }
    let mut ones = fours.remainder().chunks_exact(S::WIDTH);
    for x in &mut ones {
        // SAFETY: the chunk is one vector.
        sums[0] = simd.add(sums[0], term.of(simd, unsafe { simd.load(x.as_ptr()) }));
    }
    let mut rest = 0.0;
    for x in ones.remainder() {
        let [x] = term.of(Portable::<1>, [*x]);
        rest += x;
    }
    simd.sum_of_lanes(simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]))) + rest
}
