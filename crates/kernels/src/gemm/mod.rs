//! Matrix products of rows of tokens with packed weights.
//!
//! Weights are packed once: panels of [`PANEL`] columns, in each of them one *word* of every column after another, where
//! a word is four bytes of `k`: one f32, two bf16, four int8. Every instruction set reads that layout; a tile of AMX is
//! sixteen words of a panel.
//!
//! A call takes a block of rows at a time, of as many words as the second cache holds, and walks some panels over it: a
//! chunk of `k` of those panels stays in the first cache while all rows of the block pass. Sums wait between chunks in
//! memory, so each is taken in the order of `k` in one register: a row's bits depend on nothing beside it.

mod block;
mod finish;
mod left;
mod packed;
mod peak;
mod strips;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod vectors;

use std::{cell::RefCell, ops::Range};

use half::bf16;

use self::{finish::Finish, left::Left};
pub use self::{packed::PackedWeights, peak::peak};
#[cfg(target_arch = "x86_64")]
use crate::lanes::{Avx512Bf16, Lanes};
use crate::{Isa, aligned::Scratch};

/// Columns of a panel.
pub(crate) const PANEL: usize = 16;
/// Bytes of the left side that stay in the second cache while the panels pass.
const LEFT_BYTES: usize = 768 << 10;
/// So many rows share the reading of a panel, when there are as many.
const LEAST_ROWS: usize = 256;
/// Rows of a block are a multiple of two tiles: with so many in its memory, the left side of a product is read where it
/// is.
pub const ROW_STEP: usize = 32;

/// The numbers that a product is computed in; sums are f32, or i32 for int8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// Both sides rounded to bf16.
    Bf16,
    /// Weights rounded to 255 steps a column, rows to 256 steps each.
    Int8,
}

impl Precision {
    /// Whether products on `isa` are made of tiles, which have whole rows of tiles on their left.
    fn tiled(self, isa: Isa) -> bool {
        isa == Isa::Amx && self != Self::F32
    }

    /// Whether pairs of bf16 are multiplied as f32 on `isa`. The left side is widened once then, when it is taken; the
    /// weights are each time that they are read, which leaves half the memory to be read.
    fn widens(self, isa: Isa) -> bool {
        self == Self::Bf16 && matches!(isa, Isa::Avx2 | Isa::Avx512 | Isa::Avx512Vnni)
    }

    /// Words of the left side for a word of the weights.
    fn left_words(self, isa: Isa) -> usize {
        if self.widens(isa) { 2 } else { 1 }
    }

    /// Numbers in a word.
    const fn per_word(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }
}

/// Rows of numbers, one after another.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// Rounded.
    Bf16(&'a [bf16]),
}

impl Rows<'_> {
    /// How many numbers there are.
    pub fn numbers(&self) -> usize {
        match self {
            Self::F32(x) => x.len(),
            Self::Bf16(x) => x.len(),
        }
    }

    /// Some of the numbers.
    ///
    /// # Panics
    ///
    /// There are fewer.
    #[must_use]
    pub fn part(self, numbers: Range<usize>) -> Self {
        match self {
            Self::F32(x) => Self::F32(&x[numbers]),
            Self::Bf16(x) => Self::Bf16(&x[numbers]),
        }
    }
}

/// Room for rows of numbers.
#[derive(Debug)]
pub enum RowsMut<'a> {
    /// As they are.
    F32(&'a mut [f32]),
    /// To be rounded.
    Bf16(&'a mut [bf16]),
}

impl RowsMut<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(out) => out.len(),
            Self::Bf16(out) => out.len(),
        }
    }

    /// Some of the numbers.
    fn part(&mut self, numbers: Range<usize>) -> RowsMut<'_> {
        match self {
            Self::F32(out) => RowsMut::F32(&mut out[numbers]),
            Self::Bf16(out) => RowsMut::Bf16(&mut out[numbers]),
        }
    }
}

/// What is done with `x Wᵀ` on its way out. A bias is `[n]`.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// `out = x Wᵀ + bias`.
    Bias(&'a [f32]),
    /// `out = gelu(x Wᵀ + bias)`, in the erf form.
    BiasGelu(&'a [f32]),
    /// `out += x Wᵀ + bias`.
    BiasAdd(&'a [f32]),
}

impl<'a> Epilogue<'a> {
    fn bias(&self) -> &'a [f32] {
        match self {
            Self::Bias(bias) | Self::BiasGelu(bias) | Self::BiasAdd(bias) => bias,
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// `x Wᵀ` with an epilogue: `x` is `[m, k]`, `weights` `[n, k]`, `out` `[m, n]`.
///
/// `x` may have more rows than `out`. Up to a multiple of [`ROW_STEP`], and in memory that starts at a cache line, they let tiles
/// read `x` where it is; what they hold is of no concern.
///
/// ```
/// use polylance_kernels::{Epilogue, Isa, PackedWeights, Precision, Rows, RowsMut, matmul};
///
/// let weights = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]];
/// let weights = PackedWeights::new(Precision::F32, 3, 2, |row, numbers| numbers.copy_from_slice(&weights[row]));
/// let mut out = [0.0; 3];
/// matmul(Isa::detect(), Rows::F32(&[1.0, 10.0]), &weights, Epilogue::Bias(&[0.5; 3]), RowsMut::F32(&mut out));
/// assert_eq!(out, [21.5, 43.5, 65.5]);
/// ```
///
/// # Panics
///
/// When sizes do not fit together.
pub fn matmul(isa: Isa, x: Rows<'_>, weights: &PackedWeights, epilogue: Epilogue<'_>, mut out: RowsMut<'_>) {
    let (n, k) = (weights.n(), weights.k());
    assert!(x.numbers().is_multiple_of(k), "the left side is whole rows of {k} numbers");
    let (rows, room) = (x.numbers() / k, out.len());
    assert!(room.is_multiple_of(n) && room / n <= rows, "there is room for whole rows of {n} numbers, at most {rows}");
    assert_eq!(epilogue.bias().len(), n, "the bias has a number a column");
    let m = room / n;
    let isa = isa.min(Isa::best());
    SCRATCH.with_borrow_mut(|scratch| {
        let at_once = block_rows(isa, weights);
        for first in (0..m).step_by(at_once) {
            let end = (first + at_once).min(m);
            let x = x.part(first * k..end.next_multiple_of(ROW_STEP).min(rows) * k);
            multiply(isa, scratch, x, weights, epilogue, out.part(first * n..end * n));
        }
    });
}

/// Rows that are taken at once.
fn block_rows(isa: Isa, weights: &PackedWeights) -> usize {
    let rows = LEFT_BYTES / (weights.words() * weights.precision().left_words(isa) * 4);
    (rows / ROW_STEP * ROW_STEP).clamp(LEAST_ROWS, 1024)
}

/// Multiplies a block of rows, as many as there is room for.
fn multiply(
    isa: Isa,
    scratch: &mut Scratch,
    x: Rows<'_>,
    weights: &PackedWeights,
    epilogue: Epilogue<'_>,
    out: RowsMut<'_>,
) {
    let rows = out.len() / weights.n();
    let padded = rows.next_multiple_of(ROW_STEP);
    let (words, panels) = (weights.words(), weights.n().div_ceil(PANEL));
    let sizes = Left::bytes(isa, padded, weights);
    #[cfg(target_arch = "x86_64")]
    if weights.precision().tiled(isa)
        && let Some(simd) = Avx512Bf16::of(isa)
    {
        let plan = tiles::Plan::new(padded, words, panels);
        let mut room = scratch.room(&[sizes[0], sizes[1], sizes[2], plan.sums() * 4]);
        let left = Left::new(isa, &mut room, x, [rows, padded], weights);
        let (sums, finish) = (room.take(plan.sums()), Finish::new(&left, weights, epilogue, out));
        return match weights.precision() {
            Precision::Int8 => simd.run(tiles::Product::<tiles::Int8>::new(plan, rows, sums, finish)),
            Precision::F32 | Precision::Bf16 => {
                simd.run(tiles::Product::<tiles::Bf16>::new(plan, rows, sums, finish));
            }
        };
    }
    let plan = vectors::Plan::new(padded, weights.precision().left_words(isa), words, panels);
    let mut room = scratch.room(&[sizes[0], sizes[1], sizes[2], plan.sums() * 4]);
    let left = Left::new(isa, &mut room, x, [rows, padded], weights);
    let (sums, finish) = (room.take(plan.sums()), Finish::new(&left, weights, epilogue, out));
    vectors::multiply(isa, plan, rows, sums, finish);
}
