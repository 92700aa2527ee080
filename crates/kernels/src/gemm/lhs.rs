//! The left side of a product: rows packed as k-groups.

use half::bf16;

use super::{PackedWeights, Precision, Rows};
use crate::{
    Isa,
    aligned::{CACHE_LINE_BYTES, ScratchSlices},
    element::Element,
    simd::{Kernel, Portable, Simd, run},
};

/// Groups in a cache line.
const CACHE_LINE_GROUPS: usize = CACHE_LINE_BYTES / 4;

/// A block of rows as groups, with the scale and the zero of each row for int8.
#[derive(Debug)]
pub(super) struct PackedLhs<'a> {
    start: *const u32,
    stride: usize,
    groups_per_rhs_group: usize,
    /// The value of one step of each row.
    scales: &'a mut [f32],
    /// The step of each row that stands for 0.
    zeros: &'a mut [i32],
}

impl<'a> PackedLhs<'a> {
    /// Bytes of the groups, the scales and the zeros.
    pub(super) fn sizes(isa: Isa, padded: usize, weights: &PackedWeights) -> [usize; 3] {
        let groups = weights.k_groups() * weights.precision().lhs_groups(isa);
        let quantized = if weights.precision() == Precision::Int8 { padded * 4 } else { 0 };
        [padded * stride(groups) * 4, quantized, quantized]
    }

    /// Uses `rows` rows where they are if they are groups already, and converts them otherwise. `padded` rows will be
    /// read; the contents of those beyond the last one do not matter.
    pub(super) fn new(
        isa: Isa,
        slices: &mut ScratchSlices<'a>,
        x: Rows<'a>,
        [rows, padded]: [usize; 2],
        weights: &PackedWeights,
    ) -> Self {
        let groups_per_rhs_group = weights.precision().lhs_groups(isa);
        let (k, groups) = (weights.k(), weights.k_groups() * groups_per_rhs_group);
        let stride = stride(groups);
        let to = slices.take::<u32>(padded * stride);
        let quantized = if weights.precision() == Precision::Int8 { padded } else { 0 };
        let (scales, zeros) = (slices.take::<f32>(quantized), slices.take::<i32>(quantized));
        let direct: Option<(*const u32, usize)> = match (&x, weights.precision()) {
            (Rows::F32(x), Precision::F32) if k == groups => Some((x.as_ptr().cast(), x.len() / k)),
            (Rows::Bf16(x), Precision::Bf16) if k == 2 * groups => Some((x.as_ptr().cast(), x.len() / k)),
            _ => None,
        };
        // Tiles are read whole, line by line, and rows a power of two apart share too few sets of the cache.
        if let Some((from, available)) = direct
            && (!weights.precision().tiled(isa)
                || (available >= padded && from.addr().is_multiple_of(CACHE_LINE_BYTES)))
            && !groups.is_multiple_of(32 * CACHE_LINE_GROUPS)
        {
            return Self { start: from, stride: groups, groups_per_rhs_group, scales, zeros };
        }
        let (precision, widened) = (weights.precision(), weights.precision().widens(isa));
        let convert = Convert { x, rows, k, groups, stride, to: to.as_mut_ptr(), scales, zeros, precision, widened };
        let (scales, zeros) = run(isa, convert);
        Self { start: to.as_ptr(), stride, groups_per_rhs_group, scales, zeros }
    }

    /// The first row's first group.
    pub(super) fn start(&self) -> *const u32 {
        self.start
    }

    /// Groups from a row to the next.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Groups of a row for each group of the weights.
    pub(super) fn groups_per_rhs_group(&self) -> usize {
        self.groups_per_rhs_group
    }

    pub(super) fn scales(&self) -> &[f32] {
        self.scales
    }

    pub(super) fn zeros(&self) -> &[i32] {
        self.zeros
    }
}

/// An odd number of cache lines, so that neighbouring rows lie in different sets of the cache.
fn stride(groups: usize) -> usize {
    (groups.div_ceil(CACHE_LINE_GROUPS) | 1) * CACHE_LINE_GROUPS
}

/// Writes rows as groups, with zeros after the last number.
struct Convert<'a, 'b> {
    x: Rows<'b>,
    rows: usize,
    k: usize,
    groups: usize,
    stride: usize,
    to: *mut u32,
    scales: &'a mut [f32],
    zeros: &'a mut [i32],
    precision: Precision,
    /// For bf16: whether a group is one number, as f32.
    widened: bool,
}

impl<'a> Kernel for Convert<'a, '_> {
    type Output = (&'a mut [f32], &'a mut [i32]);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self { x, rows, k, groups, stride, to, scales, zeros, precision, widened } = self;
        for row in 0..rows {
            // SAFETY: `to` has room for `rows` rows of `stride` groups, and `groups` is at most that.
            let to = unsafe { std::slice::from_raw_parts_mut(to.add(row * stride), groups) };
            let numbers = row * k..(row + 1) * k;
            match (x, precision) {
                (Rows::F32(x), Precision::F32) => convert_f32(&x[numbers], to),
                (Rows::Bf16(x), Precision::F32) => widen(simd, &x[numbers], to),
                (Rows::Bf16(x), Precision::Bf16) if widened => widen(simd, &x[numbers], to),
                (Rows::F32(x), Precision::Bf16) if widened => round_and_widen(simd, &x[numbers], to),
                (Rows::F32(x), Precision::Bf16) => round(simd, &x[numbers], to),
                (Rows::Bf16(x), Precision::Bf16) => convert_bf16(&x[numbers], to),
                (Rows::F32(x), Precision::Int8) => {
                    (scales[row], zeros[row]) = quantize(simd, &x[numbers], to);
                }
                (Rows::Bf16(x), Precision::Int8) => {
                    (scales[row], zeros[row]) = quantize(simd, &x[numbers], to);
                }
            }
        }
        (scales, zeros)
    }
}

#[inline(always)]
fn convert_f32(from: &[f32], to: &mut [u32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.to_bits();
    }
    to[from.len()..].fill(0);
}

#[inline(always)]
fn convert_bf16(from: &[bf16], to: &mut [u32]) {
    to[from.len() / 2..].fill(0);
    // SAFETY: a group has room for two numbers, and any bytes are a group; the two do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr().cast(), from.len()) };
}

#[inline(always)]
fn widen<S: Simd>(simd: S, from: &[bf16], to: &mut [u32]) {
    let whole = from.len() / S::WIDTH * S::WIDTH;
    // SAFETY: vectors up to the last whole one, then single numbers up to the row's end; `to` is as long or longer.
    unsafe {
        let out = to.as_mut_ptr().cast::<f32>();
        for at in (0..whole).step_by(S::WIDTH) {
            simd.store(out.add(at), simd.load_bf16(from.as_ptr().add(at)));
        }
        for at in whole..from.len() {
            Portable::<1>.store(out.add(at), Portable::<1>.load_bf16(from.as_ptr().add(at)));
        }
    }
    to[from.len()..].fill(0);
}

#[inline(always)]
fn round<S: Simd>(simd: S, from: &[f32], to: &mut [u32]) {
    to[from.len() / 2..].fill(0);
    let whole = from.len() / S::WIDTH * S::WIDTH;
    // SAFETY: vectors up to the last whole one, then single numbers up to the row's end; a group has room for two.
    unsafe {
        let out = to.as_mut_ptr().cast::<bf16>();
        for at in (0..whole).step_by(S::WIDTH) {
            simd.store_bf16(out.add(at), simd.load(from.as_ptr().add(at)));
        }
        for at in whole..from.len() {
            Portable::<1>.store_bf16(out.add(at), Portable::<1>.load(from.as_ptr().add(at)));
        }
    }
}

#[inline(always)]
fn round_and_widen<S: Simd>(simd: S, from: &[f32], to: &mut [u32]) {
    let mut rounded = [bf16::ZERO; 16];
    for (from, to) in from.chunks(S::WIDTH).zip(to.chunks_mut(S::WIDTH)) {
        if from.len() == S::WIDTH {
            // SAFETY: both hold a vector, and no vector is longer than what is rounded into.
            unsafe {
                simd.store_bf16(rounded.as_mut_ptr(), simd.load(from.as_ptr()));
                simd.store(to.as_mut_ptr().cast(), simd.load_bf16(rounded.as_ptr()));
            }
        } else {
            for (from, to) in from.iter().zip(to) {
                *to = bf16::from_f32(*from).to_f32().to_bits();
            }
        }
    }
    to[from.len()..].fill(0);
}

/// Rounds a row to 256 steps from its smallest number to its largest. Returns the value of one step, and the step that
/// stands for 0. A number that is not finite makes the scale not finite, and with it every result of the row.
#[inline(always)]
fn quantize<S: Simd, E: Element>(simd: S, from: &[E], to: &mut [u32]) -> (f32, i32) {
    to[from.len() / 4..].fill(0);
    let Range { min, max, not_finite } = range(simd, from);
    let scale = if max > min { (max - min) / 255.0 } else { 1.0 };
    let zero = (-min / scale).round();
    let inverse = 1.0 / scale;
    let mut at = 0;
    // The step for 0 is rounded, so the ends of the range may be half a step outside: 255.5 would overflow a byte.
    // SAFETY: vectors up to the last whole one, then single numbers up to the row's end; a group has room for four
    // steps.
    unsafe {
        let steps = to.as_mut_ptr().cast::<u8>();
        while at + S::WIDTH <= from.len() {
            let x = E::load(simd, from.as_ptr().add(at));
            simd.store_u8(steps.add(at), simd.mul_add(x, simd.splat(inverse), simd.splat(zero)));
            at += S::WIDTH;
        }
        while at < from.len() {
            let [x] = E::load(Portable::<1>, from.as_ptr().add(at));
            Portable::<1>.store_u8(steps.add(at), [x.mul_add(inverse, zero)]);
            at += 1;
        }
    }
    (scale + not_finite, zero as i32)
}

/// The smallest and the largest of a row's numbers and 0.
struct Range {
    min: f32,
    max: f32,
    /// 0, or NaN where the row has a number that is not finite.
    not_finite: f32,
}

/// Four vectors at a time: enough to hide the latency of the three instructions on each.
#[inline(always)]
fn range<S: Simd, E: Element>(simd: S, from: &[E]) -> Range {
    let zeros = [simd.splat(0.0); 4];
    let (mut min, mut max, mut not_finite) = (zeros, zeros, zeros);
    let mut rest = Range { min: 0.0, max: 0.0, not_finite: 0.0 };
    let mut at = 0;
    // SAFETY: vectors up to the last whole one, then single numbers up to the row's end.
    unsafe {
        while at + S::WIDTH <= from.len() {
            let vectors = (from.len() - at) / S::WIDTH;
            for chain in 0..4 {
                if chain < vectors {
                    let x = E::load(simd, from.as_ptr().add(at));
                    min[chain] = simd.min(x, min[chain]);
                    max[chain] = simd.max(x, max[chain]);
                    not_finite[chain] = simd.mul_add(x, simd.splat(0.0), not_finite[chain]);
                    at += S::WIDTH;
                }
            }
        }
        while at < from.len() {
            let [x] = E::load(Portable::<1>, from.as_ptr().add(at));
            rest.min = rest.min.min(x);
            rest.max = rest.max.max(x);
            rest.not_finite += x * 0.0;
            at += 1;
        }
    }
    let [a, b, c, d] = min;
    let min = simd.reduce_min(simd.min(simd.min(a, b), simd.min(c, d)));
    let [a, b, c, d] = max;
    let max = simd.reduce_max(simd.max(simd.max(a, b), simd.max(c, d)));
    let [a, b, c, d] = not_finite;
    let not_finite = simd.reduce_sum(simd.add(simd.add(a, b), simd.add(c, d)));
    Range { min: min.min(rest.min), max: max.max(rest.max), not_finite: not_finite + rest.not_finite }
}
