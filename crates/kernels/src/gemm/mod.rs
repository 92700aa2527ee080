//! Matrix products of rows of tokens with packed weights.
//!
//! Weights are packed once, in panels of [`PANEL`] columns. A panel is a sequence of *k-groups*: four bytes of `k` of
//! each column, one column after another, which are one f32, two bf16 or four int8. Every instruction set reads that
//! layout; a tile of AMX is sixteen groups of a panel.
//!
//! ```text
//! panel p:  group 0                     group 1
//!           column 0 | 1 | .. | 15      column 0 | 1 | .. | 15      ..
//!           k = 0      0        0       k = 1      1        1           f32
//!           k = 0, 1   0, 1     0, 1    k = 2, 3   2, 3     2, 3        bf16
//! ```
//!
//! A call multiplies a block of rows at a time, as many as fit into the second-level cache for `kc` groups, and passes
//! a few panels over it: a chunk of `k` of those panels stays in the first-level cache while all rows of the block
//! pass. Between chunks the sums wait in memory, so each is accumulated in the order of `k` in one register, and a
//! row's bits do not depend on the other rows. A micro-kernel multiplies a few rows by a few panels; the epilogue then
//! writes the result.
//!
//! The blocking is that of BLIS (Van Zee and van de Geijn, 2015), with `W` as the packed side.

mod block;
mod dispatch;
mod epilogue;
mod lhs;
mod micro_kernels;
mod packed;
mod peak;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod vectors;

use std::{cell::RefCell, ops::Range};

use half::bf16;

use self::{epilogue::BlockEpilogue, lhs::PackedLhs};
pub use self::{epilogue::Epilogue, packed::PackedWeights, peak::peak};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx512Bf16, Simd};
use crate::{Isa, aligned::Scratch};

/// Columns of a panel.
pub(crate) const PANEL: usize = 16;
/// Bytes of the left side that stay in the second-level cache while the panels pass.
const L2_LHS_BYTES: usize = 768 << 10;
/// The smallest and the largest number of rows in a block: they share the reads of a panel.
const MIN_BLOCK_ROWS: usize = 256;
const MAX_BLOCK_ROWS: usize = 1024;
/// The rows of a block are padded to a multiple of this, two tiles. A left side whose memory has that many rows is read
/// where it is.
pub const ROW_STEP: usize = 32;

/// The numbers that a product is computed in; sums are f32, or i32 for int8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// Both sides rounded to bf16.
    Bf16,
    /// Weights rounded to 255 steps per column, rows to 256 steps each.
    Int8,
}

impl Precision {
    /// Whether products on `isa` are computed by tiles, which read whole tiles of the left side.
    fn tiled(self, isa: Isa) -> bool {
        isa == Isa::Amx && self != Self::F32
    }

    /// Whether pairs of bf16 are multiplied as f32 on `isa`. The left side is then widened once, when it is packed; the
    /// weights are widened each time they are read, which halves the bytes to read.
    fn widens(self, isa: Isa) -> bool {
        self == Self::Bf16 && matches!(isa, Isa::Avx2 | Isa::Avx512 | Isa::Avx512Vnni)
    }

    /// Groups of the left side for each group of the weights.
    fn lhs_groups(self, isa: Isa) -> usize {
        if self.widens(isa) { 2 } else { 1 }
    }

    const fn numbers_per_group(self) -> usize {
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
    /// The range ends beyond the last number.
    #[must_use]
    pub fn slice(self, numbers: Range<usize>) -> Self {
        match self {
            Self::F32(x) => Self::F32(&x[numbers]),
            Self::Bf16(x) => Self::Bf16(&x[numbers]),
        }
    }
}

/// Memory for rows of numbers.
#[derive(Debug)]
pub enum RowsMut<'a> {
    /// As they are.
    F32(&'a mut [f32]),
    /// Rounded.
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
    fn slice(&mut self, numbers: Range<usize>) -> RowsMut<'_> {
        match self {
            Self::F32(out) => RowsMut::F32(&mut out[numbers]),
            Self::Bf16(out) => RowsMut::Bf16(&mut out[numbers]),
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// `x Wᵀ` with an epilogue: `x` is `[m, k]`, `weights` `[n, k]`, `out` `[m, n]`.
///
/// `x` may have more rows than `out`, whose contents do not matter. If they fill `x` up to a multiple of [`ROW_STEP`],
/// and `x` starts at a cache line, tiles read it where it is.
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
/// The sizes do not fit together.
pub fn matmul(isa: Isa, x: Rows<'_>, weights: &PackedWeights, epilogue: Epilogue<'_>, mut out: RowsMut<'_>) {
    let (n, k) = (weights.n(), weights.k());
    assert!(x.numbers().is_multiple_of(k), "the left side is whole rows of {k} numbers");
    let (rows, len) = (x.numbers() / k, out.len());
    assert!(len.is_multiple_of(n) && len / n <= rows, "the output is whole rows of {n} numbers, at most {rows}");
    assert_eq!(epilogue.bias().len(), n, "the bias has a number for each column");
    let m = len / n;
    let isa = isa.min(Isa::best());
    SCRATCH.with_borrow_mut(|scratch| {
        let block_rows = block_rows(isa, weights);
        for first in (0..m).step_by(block_rows) {
            let end = (first + block_rows).min(m);
            let x = x.slice(first * k..end.next_multiple_of(ROW_STEP).min(rows) * k);
            multiply(isa, scratch, x, weights, epilogue, out.slice(first * n..end * n));
        }
    });
}

/// Rows of a block.
fn block_rows(isa: Isa, weights: &PackedWeights) -> usize {
    let rows = L2_LHS_BYTES / (weights.k_groups() * weights.precision().lhs_groups(isa) * 4);
    (rows / ROW_STEP * ROW_STEP).clamp(MIN_BLOCK_ROWS, MAX_BLOCK_ROWS)
}

/// Multiplies a block: as many rows as `out` has.
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
    let (k_groups, panels) = (weights.k_groups(), weights.n().div_ceil(PANEL));
    let sizes = PackedLhs::sizes(isa, padded, weights);
    #[cfg(target_arch = "x86_64")]
    if weights.precision().tiled(isa)
        && let Some(simd) = Avx512Bf16::try_new(isa)
    {
        let plan = tiles::Plan::new(padded, k_groups, panels);
        let mut slices = scratch.slices(&[sizes[0], sizes[1], sizes[2], plan.sums() * 4]);
        let lhs = PackedLhs::new(isa, &mut slices, x, [rows, padded], weights);
        let (sums, epilogue) = (slices.take(plan.sums()), BlockEpilogue::new(&lhs, weights, epilogue, out));
        return match weights.precision() {
            Precision::Int8 => simd.run(tiles::Product::<tiles::Int8>::new(plan, rows, sums, epilogue)),
            Precision::F32 | Precision::Bf16 => {
                simd.run(tiles::Product::<tiles::Bf16>::new(plan, rows, sums, epilogue));
            }
        };
    }
    let plan = vectors::Plan::new(padded, weights.precision().lhs_groups(isa), k_groups, panels);
    let mut slices = scratch.slices(&[sizes[0], sizes[1], sizes[2], plan.sums() * 4]);
    let lhs = PackedLhs::new(isa, &mut slices, x, [rows, padded], weights);
    let (sums, epilogue) = (slices.take(plan.sums()), BlockEpilogue::new(&lhs, weights, epilogue, out));
    vectors::multiply(isa, plan, rows, sums, epilogue);
}
