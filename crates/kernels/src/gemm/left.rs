//! The left side of a product: rows as words.

use half::bf16;

use super::{PackedWeights, Precision, Rows};
use crate::{
    Isa,
    aligned::{LINE, Room},
    lanes::{Kernel, Lanes, Portable, run},
    number::Number,
};

/// Words in a cache line.
const LINE_WORDS: usize = 16;

/// A block of rows as words, and what a step of each row of int8 is worth.
#[derive(Debug)]
pub(super) struct Left<'a> {
    words: *const u32,
    stride: usize,
    /// Words for a word of the weights.
    per_word: usize,
    scales: &'a mut [f32],
    /// The step that stands for 0.
    zeros: &'a mut [i32],
}

impl<'a> Left<'a> {
    /// Room for the words, the scales and the zeros.
    pub(super) fn bytes(isa: Isa, padded: usize, weights: &PackedWeights) -> [usize; 3] {
        let words = weights.words() * weights.precision().left_words(isa);
        let quantized = if weights.precision() == Precision::Int8 { padded * 4 } else { 0 };
        [padded * stride(words) * 4, quantized, quantized]
    }

    /// Takes `rows` rows as they are where they are words already, and converts them otherwise. There are `padded` rows
    /// to be read in the end; what those behind the last one hold is of no concern.
    pub(super) fn new(
        isa: Isa,
        room: &mut Room<'a>,
        x: Rows<'a>,
        [rows, padded]: [usize; 2],
        weights: &PackedWeights,
    ) -> Self {
        let per_word = weights.precision().left_words(isa);
        let (k, words) = (weights.k(), weights.words() * per_word);
        let stride = stride(words);
        let to = room.take::<u32>(padded * stride);
        let quantized = if weights.precision() == Precision::Int8 { padded } else { 0 };
        let (scales, zeros) = (room.take::<f32>(quantized), room.take::<i32>(quantized));
        let direct: Option<(*const u32, usize)> = match (&x, weights.precision()) {
            (Rows::F32(x), Precision::F32) if k == words => Some((x.as_ptr().cast(), x.len() / k)),
            (Rows::Bf16(x), Precision::Bf16) if k == 2 * words => Some((x.as_ptr().cast(), x.len() / k)),
            _ => None,
        };
        // Tiles are read whole, line by line, and rows a power of two apart share too few places of the cache.
        if let Some((from, there)) = direct
            && (!weights.precision().tiled(isa) || (there >= padded && from.addr().is_multiple_of(LINE)))
            && !words.is_multiple_of(32 * LINE_WORDS)
        {
            return Self { words: from, stride: words, per_word, scales, zeros };
        }
        let (precision, widened) = (weights.precision(), weights.precision().widens(isa));
        let convert = Convert { x, rows, k, words, stride, to: to.as_mut_ptr(), scales, zeros, precision, widened };
        let (scales, zeros) = run(isa, convert);
        Self { words: to.as_ptr(), stride, per_word, scales, zeros }
    }

    /// The first row's first word.
    pub(super) fn words(&self) -> *const u32 {
        self.words
    }

    /// Words from a row to the next.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Words for a word of the weights.
    pub(super) fn per_word(&self) -> usize {
        self.per_word
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
    rows: usize,
    k: usize,
    words: usize,
    stride: usize,
    to: *mut u32,
    scales: &'a mut [f32],
    zeros: &'a mut [i32],
    precision: Precision,
    /// Of bf16: whether a word is a number of them, as f32.
    widened: bool,
}

impl<'a> Kernel for Convert<'a, '_> {
    type Output = (&'a mut [f32], &'a mut [i32]);

    #[inline(always)]
    fn run<S: Lanes>(self, simd: S) -> Self::Output {
        let Self { x, rows, k, words, stride, to, scales, zeros, precision, widened } = self;
        for row in 0..rows {
            // SAFETY: `to` has room for `rows` rows of `stride` words, and `words` are at most that.
            let to = unsafe { std::slice::from_raw_parts_mut(to.add(row * stride), words) };
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
    // SAFETY: a word has room for two, and any bytes are a word; the two do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr().cast(), from.len()) };
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

#[inline(always)]
fn round_and_widen<S: Lanes>(simd: S, from: &[f32], to: &mut [u32]) {
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

/// Rounds a row to steps from its least number to its greatest; what a step is worth, and the one that stands for 0. A
/// number that is not finite makes the scale not finite, and so all that the row becomes.
#[inline(always)]
fn quantize<S: Lanes, N: Number>(simd: S, from: &[N], to: &mut [u32]) -> (f32, i32) {
    to[from.len() / 4..].fill(0);
    let Range { least, greatest, seen } = range(simd, from);
    let scale = if greatest > least { (greatest - least) / 255.0 } else { 1.0 };
    let zero = (-least / scale).round();
    let inverse = 1.0 / scale;
    let mut at = 0;
    // The step for 0 is rounded, so the ends of the range may be half a step outside: at 255.5 a byte would be full.
    // SAFETY: vectors up to the last whole one, then single numbers up to the row's end; a word has room for four steps.
    unsafe {
        let steps = to.as_mut_ptr().cast::<u8>();
        while at + S::WIDTH <= from.len() {
            let x = N::load(simd, from.as_ptr().add(at));
            simd.store_u8(steps.add(at), simd.mul_add(x, simd.splat(inverse), simd.splat(zero)));
            at += S::WIDTH;
        }
        while at < from.len() {
            let [x] = N::load(Portable::<1>, from.as_ptr().add(at));
            Portable::<1>.store_u8(steps.add(at), [x.mul_add(inverse, zero)]);
            at += 1;
        }
    }
    (scale + seen, zero as i32)
}

/// Of a row's numbers and 0, the least and the greatest.
struct Range {
    least: f32,
    greatest: f32,
    /// 0, or not a number where the row has one that is not finite.
    seen: f32,
}

/// Four vectors at a time, as many as hide how long each step of three takes.
#[inline(always)]
fn range<S: Lanes, N: Number>(simd: S, from: &[N]) -> Range {
    let none = [simd.splat(0.0); 4];
    let (mut least, mut greatest, mut seen) = (none, none, none);
    let mut rest = Range { least: 0.0, greatest: 0.0, seen: 0.0 };
    let mut at = 0;
    // SAFETY: vectors up to the last whole one, then single numbers up to the row's end.
    unsafe {
        while at + S::WIDTH <= from.len() {
            let four = (from.len() - at) / S::WIDTH;
            for lane in 0..4 {
                if lane < four {
                    let x = N::load(simd, from.as_ptr().add(at));
                    least[lane] = simd.min(x, least[lane]);
                    greatest[lane] = simd.max(x, greatest[lane]);
                    seen[lane] = simd.mul_add(x, simd.splat(0.0), seen[lane]);
                    at += S::WIDTH;
                }
            }
        }
        while at < from.len() {
            let [x] = N::load(Portable::<1>, from.as_ptr().add(at));
            rest.least = rest.least.min(x);
            rest.greatest = rest.greatest.max(x);
            rest.seen += x * 0.0;
            at += 1;
        }
    }
    let [a, b, c, d] = least;
    let least = simd.least_of_lanes(simd.min(simd.min(a, b), simd.min(c, d)));
    let [a, b, c, d] = greatest;
    let greatest = simd.greatest_of_lanes(simd.max(simd.max(a, b), simd.max(c, d)));
    let [a, b, c, d] = seen;
    let seen = simd.sum_of_lanes(simd.add(simd.add(a, b), simd.add(c, d)));
    Range { least: least.min(rest.least), greatest: greatest.max(rest.greatest), seen: seen + rest.seen }
}
