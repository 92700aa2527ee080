//! Sums over a row, in one order for each width of vectors.

use crate::simd::{Portable, Simd};

/// The term that is summed for each number.
pub(crate) trait Summand: Copy {
    /// Must be `inline(always)`.
    fn map<S: Simd>(self, simd: S, x: S::F32) -> S::F32;
}

/// The number itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity;

impl Summand for Identity {
    #[inline(always)]
    fn map<S: Simd>(self, _: S, x: S::F32) -> S::F32 {
        x
    }
}

/// The square of its deviation from a mean.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SquaredDeviation {
    pub(crate) mean: f32,
}

impl Summand for SquaredDeviation {
    #[inline(always)]
    fn map<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
        let deviation = simd.sub(x, simd.splat(self.mean));
        simd.mul(deviation, deviation)
    }
}

/// Sums `summand` over `row` in four vectors: enough to hide the latency of an addition, and more precise than one
/// running total.
#[inline(always)]
pub(crate) fn sum<S: Simd, T: Summand>(simd: S, row: &[f32], summand: T) -> f32 {
    let mut sums = [simd.splat(0.0); 4];
    let mut fours = row.chunks_exact(4 * S::WIDTH);
    for four in &mut fours {
        for (sum, x) in sums.iter_mut().zip(four.chunks_exact(S::WIDTH)) {
            // SAFETY: the chunk is one vector.
            *sum = simd.add(*sum, summand.map(simd, unsafe { simd.load(x.as_ptr()) }));
        }
    }
    let mut ones = fours.remainder().chunks_exact(S::WIDTH);
    for x in &mut ones {
        // SAFETY: the chunk is one vector.
        sums[0] = simd.add(sums[0], summand.map(simd, unsafe { simd.load(x.as_ptr()) }));
    }
    let mut rest = 0.0;
    for x in ones.remainder() {
        let [x] = summand.map(Portable::<1>, [*x]);
        rest += x;
    }
    simd.reduce_sum(simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]))) + rest
}
