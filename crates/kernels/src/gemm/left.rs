//! The left side of a product: rows as words.

use half::bf16;

use super::{PackedWeights, Precision, Rows};
use crate::{
    Isa,
    aligned::Room,
    lanes::{Kernel, Lanes, Portable, run},
};

/// Words in a cache line.
const LINE_WORDS: usize = 16;

/// A block of rows as words, and what a step of each row of int8 is worth.
#[derive(Debug)]
pub(super) struct Left<'a> {
    words: *const u32,
    stride: usize,
    scales: &'a mut [f32],
    /// The step that stands for 0.
    zeros: &'a mut [i32],
}

impl<'a> Left<'a> {
    /// Room for the words, the scales and the zeros.
    pub(super) fn bytes(padded: usize, weights: &PackedWeights) -> [usize; 3] {
        let quantized = if weights.precision() == Precision::Int8 { padded * 4 } else { 0 };
        [padded * stride(weights.words()) * 4, quantized, quantized]
    }

    /// Takes rows as they are where they are words already, and converts them otherwise. There are `padded` rows to be
    /// read in the end; what those behind the last one hold is of no concern.
    pub(super) fn new(isa: Isa, room: &mut Room<'a>, x: Rows<'a>, padded: usize, weights: &PackedWeights) -> Self {
        let (k, words) = (weights.k(), weights.words());
        let stride = stride(words);
        let to = room.take::<u32>(padded * stride);
        let quantized = if weights.precision() == Precision::Int8 { padded } else { 0 };
        let (scales, zeros) = (room.take::<f32>(quantized), room.take::<i32>(quantized));
        let direct = match (&x, weights.precision()) {
            (Rows::F32(x), Precision::F32) if k == words => Some((x.as_ptr().cast(), x.len() / k)),
            (Rows::Bf16(x), Precision::Bf16) if k == 2 * words => Some((x.as_ptr().cast(), x.len() / k)),
            _ => None,
        };
        // Tiles are read whole, and rows a power of two apart share too few places of the cache.
        if let Some((from, rows)) = direct
            && (rows == padded || !weights.precision().tiled(isa))
            && !words.is_multiple_of(32 * LINE_WORDS)
        {
            return Self { words: from, stride: words, scales, zeros };
        }
        let convert =
            Convert { x, k, words, stride, to: to.as_mut_ptr(), scales, zeros, precision: weights.precision() };
        let (scales, zeros) = run(isa, convert);
        Self { words: to.as_ptr(), stride, scales, zeros }
    }

    /// The first row's first word.
    pub(super) fn words(&self) -> *const u32 {
        self.words
    }

    /// Words from a row to the next.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    pub(super) fn scales(&self) -> &[f32] {
        self.scales
    }

    pub(super) fn zeros(&self) -> &[i32] {
        self.zeros
    }
}

/// An odd number of cache lines, so that neighbouring rows lie in different places of the cache.
fn stride(words: usize) -> usize {
    (words.div_ceil(LINE_WORDS) | 1) * LINE_WORDS
}

/// Writes rows as words, zeros behind the last number.
struct Convert<'a, 'b> {
    x: Rows<'b>,
    k: usize,
    words: usize,
    stride: usize,
    to: *mut u32,
    scales: &'a mut [f32],
    zeros: &'a mut [i32],
    precision: Precision,
}

impl<'a> Kernel for Convert<'a, '_> {
    type Output = (&'a mut [f32], &'a mut [i32]);

    #[inline(always)]
    fn run<S: Lanes>(self, simd: S) -> Self::Output {
        let Self { x, k, words, stride, to, scales, zeros, precision } = self;
        let rows = match x {
            Rows::F32(x) => x.len() / k,
            Rows::Bf16(x) => x.len() / k,
        };
        for row in 0..rows {
            // SAFETY: `to` has room for `rows` rows of `stride` words, and `words` are at most that.
            let to = unsafe { std::slice::from_raw_parts_mut(to.add(row * stride), words) };
            let numbers = row * k..(row + 1) * k;
            match (x, precision) {
                (Rows::F32(x), Precision::F32) => convert_f32(&x[numbers], to),
                (Rows::Bf16(x), Precision::F32) => widen(simd, &x[numbers], to),
                (Rows::F32(x), Precision::Bf16) => round(simd, &x[numbers], to),
                (Rows::Bf16(x), Precision::Bf16) => convert_bf16(&x[numbers], to),
                (Rows::F32(x), Precision::Int8) => {
                    (scales[row], zeros[row]) = quantize(&x[numbers], |x| x, to);
                }
                (Rows::Bf16(x), Precision::Int8) => {
                    (scales[row], zeros[row]) = quantize(&x[numbers], bf16::to_f32, to);
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
    let (pairs, last) = from.as_chunks::<2>();
    for (to, [a, b]) in to.iter_mut().zip(pairs) {
        *to = u32::from(a.to_bits()) | u32::from(b.to_bits()) << 16;
    }
    to[pairs.len()..].fill(0);
    if let [last] = last {
        to[pairs.len()] = u32::from(last.to_bits());
    }
}

#[inline(always)]
fn widen<S: Lanes>(simd: S, from: &[bf16], to: &mut [u32]) {
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
fn round<S: Lanes>(simd: S, from: &[f32], to: &mut [u32]) {
    to[from.len() / 2..].fill(0);
    let whole = from.len() / S::WIDTH * S::WIDTH;
    // SAFETY: vectors up to the last whole one, then single numbers up to the row's end; a word has room for two.
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

/// Rounds a row to steps from its least number to its greatest; what a step is worth, and the one that stands for 0. A
/// number that is not finite makes the scale not finite, and so all that the row becomes.
#[inline(always)]
fn quantize<T: Copy>(from: &[T], to_f32: impl Fn(T) -> f32, to: &mut [u32]) -> (f32, i32) {
    // Adding it rounds to an integer and leaves that in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let (mut least, mut greatest, mut seen) = ([0.0_f32; 16], [0.0_f32; 16], [0.0_f32; 16]);
    let (chunks, rest) = from.as_chunks::<16>();
    let mut look = |lane: usize, x: f32| {
        least[lane] = if x < least[lane] { x } else { least[lane] };
        greatest[lane] = if x > greatest[lane] { x } else { greatest[lane] };
        // 0, or not a number.
        seen[lane] += x * 0.0;
    };
    for chunk in chunks {
        (0..16).for_each(|lane| look(lane, to_f32(chunk[lane])));
    }
    rest.iter().enumerate().for_each(|(lane, x)| look(lane, to_f32(*x)));
    let least = least.into_iter().fold(0.0, f32::min);
    let greatest = greatest.into_iter().fold(0.0, f32::max);
    let scale = if greatest > least { (greatest - least) / 255.0 } else { 1.0 };
    let zero = (-least / scale).round();
    let inverse = 1.0 / scale;
    // SAFETY: a word is four bytes, and any bytes are a word.
    let (_, steps, _) = unsafe { to.align_to_mut::<u8>() };
    for (step, x) in steps.iter_mut().zip(from) {
        *step = (to_f32(*x).mul_add(inverse, zero) + ROUND).to_bits() as u8;
    }
    steps[from.len()..].fill(0);
    (scale + seen.iter().sum::<f32>(), zero as i32)
}
