//! Matrix products of rows of tokens with packed weights.
//!
//! Weights are packed once: panels of [`PANEL`] columns, in each of them one *word* of every column after another, where
//! a word is four bytes of `k`: one f32, two bf16, four int8. Every instruction set reads that layout; a tile of AMX is
//! sixteen words of a panel.
//!
//! A call takes a block of rows at a time, of as many words as the second cache holds, and walks four panels over it: a
//! chunk of `k` of those panels stays in the first cache while all rows of the block pass. Sums wait between chunks in
//! memory, so each is taken in the order of `k` in one register: a row's bits depend on nothing beside it.

#[cfg(target_arch = "x86_64")]
mod amx;
mod block;
mod finish;
mod left;
mod packed;
mod peak;
mod strips;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use half::bf16;

use self::{
    block::{Block, Start},
    finish::Finish,
    left::Left,
};
pub use self::{packed::PackedWeights, peak::peak};
use crate::{Isa, aligned::Scratch};

/// Columns of a panel.
pub(crate) const PANEL: usize = 16;
/// Panels that pass over a block of rows together.
const GROUP: usize = 4;
/// Words of `k` in a chunk: four panels of it are 64 KiB.
const CHUNK: usize = 256;
/// Bytes of the left side that stay in the second cache while the panels pass.
const LEFT_BYTES: usize = 768 << 10;
/// So many rows share the reading of a panel, when there are as many.
const LEAST_ROWS: usize = 256;
/// Rows of a block are a multiple of two tiles.
const ROW_STEP: usize = 32;

/// The numbers that a product is computed in; sums are f32, or i32 for int8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats.
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

/// Room for rows of numbers.
#[derive(Debug)]
pub enum RowsMut<'a> {
    /// As they are.
    F32(&'a mut [f32]),
    /// To be rounded.
    Bf16(&'a mut [bf16]),
}

/// What is done with `x Wᵀ` before it is written. `bias`: `[n]`; `residual`: `[m, n]`.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// `x Wᵀ + bias`.
    Bias(&'a [f32]),
    /// `gelu(x Wᵀ + bias)`, in the erf form.
    BiasGelu(&'a [f32]),
    /// `residual + (x Wᵀ + bias)`.
    BiasResidual {
        /// Added to every row.
        bias: &'a [f32],
        /// Added number by number.
        residual: &'a [f32],
    },
}

impl<'a> Epilogue<'a> {
    fn bias(&self) -> &'a [f32] {
        match self {
            Self::Bias(bias) | Self::BiasGelu(bias) | Self::BiasResidual { bias, .. } => bias,
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// `x Wᵀ` with an epilogue: `x` is `[m, k]`, `weights` `[n, k]`, `out` `[m, n]`.
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
    let (numbers, room) = (
        len(&x),
        match &out {
            RowsMut::F32(out) => out.len(),
            RowsMut::Bf16(out) => out.len(),
        },
    );
    assert!(numbers.is_multiple_of(k), "the left side is whole rows of {k} numbers");
    let m = numbers / k;
    assert_eq!(room, m * n, "there is room for {m} rows of {n} numbers");
    assert_eq!(epilogue.bias().len(), n, "the bias has a number a column");
    if let Epilogue::BiasResidual { residual, .. } = epilogue {
        assert_eq!(residual.len(), m * n, "the residual has a number for each of the result");
    }
    let isa = isa.min(Isa::best());
    SCRATCH.with_borrow_mut(|scratch| {
        for first in (0..m).step_by(block_rows(weights)) {
            let rows = block_rows(weights).min(m - first);
            multiply(isa, scratch, part(&x, first * k..(first + rows) * k), weights, |sums, columns, left| {
                let finish = Finish { sums, rows, columns, n, first, epilogue, left, weights };
                finish.run(isa, &mut out);
            });
        }
    });
}

/// Rows that are taken at once.
fn block_rows(weights: &PackedWeights) -> usize {
    let rows = LEFT_BYTES / (weights.words() * 4);
    (rows / ROW_STEP * ROW_STEP).clamp(LEAST_ROWS, 1024)
}

fn len(x: &Rows<'_>) -> usize {
    match x {
        Rows::F32(x) => x.len(),
        Rows::Bf16(x) => x.len(),
    }
}

fn part<'a>(x: &Rows<'a>, range: std::ops::Range<usize>) -> Rows<'a> {
    match x {
        Rows::F32(x) => Rows::F32(&x[range]),
        Rows::Bf16(x) => Rows::Bf16(&x[range]),
    }
}

/// Multiplies a block of rows; `finish` is given the sums of some columns, `[rows, GROUP * PANEL]`.
fn multiply(
    isa: Isa,
    scratch: &mut Scratch,
    x: Rows<'_>,
    weights: &PackedWeights,
    mut finish: impl FnMut(&mut [u32], std::ops::Range<usize>, &Left<'_>),
) {
    let rows = len(&x) / weights.k();
    let padded = rows.next_multiple_of(ROW_STEP);
    let sizes = Left::bytes(padded, weights);
    let panels = weights.n().div_ceil(PANEL);
    // Words of the rows that stay in the cache; sums of all columns wait when they are not all.
    let slab = (LEFT_BYTES / (4 * padded) / CHUNK * CHUNK).max(CHUNK);
    let waiting = if slab < weights.words() { panels.div_ceil(GROUP) } else { 1 };
    let group_sums = padded * GROUP * PANEL;
    let mut room = scratch.room(&[sizes[0], sizes[1], sizes[2], waiting * group_sums * 4]);
    let left = Left::new(isa, &mut room, x, padded, weights);
    let sums = room.take::<u32>(waiting * group_sums);
    for from in (0..weights.words()).step_by(slab) {
        let to = (from + slab).min(weights.words());
        for panel in (0..panels).step_by(GROUP) {
            let group = GROUP.min(panels - panel);
            let sums = &mut sums[panel / GROUP % waiting * group_sums..][..group_sums];
            for word in (from..to).step_by(CHUNK) {
                let block = Block {
                    left: left.words().wrapping_add(word),
                    left_stride: left.stride(),
                    rows: if weights.precision().tiled(isa) { padded } else { rows },
                    right: weights.panel(panel).wrapping_add(word * PANEL),
                    panel_stride: weights.words() * PANEL,
                    panels: group,
                    words: CHUNK.min(to - word),
                    sums: sums.as_mut_ptr(),
                    start: if word == 0 { Start::Zero } else { Start::Sums },
                };
                // SAFETY: the left side has `padded` rows of `stride` words of which `words()` are the weights', the
                // group's panels lie one after another, and `sums` has room for a group's columns of every padded row.
                unsafe { block.multiply(isa, weights.precision()) };
            }
            if to == weights.words() {
                finish(sums, panel * PANEL..((panel + group) * PANEL).min(weights.n()), &left);
            }
        }
    }
}
