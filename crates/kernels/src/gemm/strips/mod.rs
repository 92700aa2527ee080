//! Blocks by vectors: a strip of a few rows by one to four panels, sums in registers.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod portable;

use std::ops::Range;

use super::{
    PANEL,
    block::{Block, SUM_STRIDE, Start},
};

/// Words of which first the first numbers are multiplied, then the second ones: both at once are more than registers
/// hold.
const PASS: usize = 64;

/// What a strip needs of a precision on an instruction set. Functions are inlined into one that is compiled for those
/// instructions, and all are unsafe because the CPU must have them and pointers must hold a vector.
trait Words<const V: usize> {
    /// `V` of them hold a panel.
    type Sums: Copy;
    type Right: Copy;
    /// A word of a row, in every lane.
    type Left: Copy;

    const LANES: usize = PANEL / V;
    /// Numbers of a word of the weights, one or two, that are each multiplied with a word of the row of its own.
    const STEPS: usize = 1;

    unsafe fn zero() -> Self::Sums;
    unsafe fn load(from: *const u32) -> Self::Sums;
    unsafe fn store(to: *mut u32, sums: Self::Sums);
    unsafe fn right<const STEP: usize>(from: *const u32) -> Self::Right;
    unsafe fn left(from: *const u32) -> Self::Left;
    unsafe fn add(sums: Self::Sums, left: Self::Left, right: Self::Right) -> Self::Sums;
}

/// `ROWS` rows from `row` by `PANELS` panels from `panel`.
///
/// # Safety
///
/// The CPU has the instructions of `W`, and rows and panels are in the block.
#[inline(always)]
unsafe fn strip<W: Words<V>, const V: usize, const ROWS: usize, const PANELS: usize>(
    block: &Block,
    row: usize,
    panel: usize,
) {
    // SAFETY: the caller's promise; a panel is `V` vectors, and words are as many as the block says.
    unsafe {
        let place =
            |r: usize, p: usize, v: usize| block.sums.add((row + r) * SUM_STRIDE + (panel + p) * PANEL + v * W::LANES);
        let mut sums = [[[W::zero(); V]; PANELS]; ROWS];
        if block.start == Start::Sums {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (p, sums) in sums.iter_mut().enumerate() {
                    for (v, sums) in sums.iter_mut().enumerate() {
                        *sums = W::load(place(r, p, v));
                    }
                }
            }
        }
        if W::STEPS == 1 {
            pass::<W, V, ROWS, PANELS, 0>(block, [row, panel], 0..block.words, &mut sums);
        } else {
            for word in (0..block.words).step_by(PASS) {
                let words = word..block.words.min(word + PASS);
                pass::<W, V, ROWS, PANELS, 0>(block, [row, panel], words.clone(), &mut sums);
                pass::<W, V, ROWS, PANELS, 1>(block, [row, panel], words, &mut sums);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (p, sums) in sums.iter().enumerate() {
                for (v, sums) in sums.iter().enumerate() {
                    W::store(place(r, p, v), *sums);
                }
            }
        }
    }
}

/// One step of some words, added to the sums.
///
/// # Safety
///
/// As for [`strip`], and the words are in the block.
#[inline(always)]
unsafe fn pass<W: Words<V>, const V: usize, const ROWS: usize, const PANELS: usize, const STEP: usize>(
    block: &Block,
    [row, panel]: [usize; 2],
    words: Range<usize>,
    sums: &mut [[[W::Sums; V]; PANELS]; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut left = block.left.add(row * block.left_stride + words.start * W::STEPS + STEP);
        let mut right = block.right.add(panel * block.panel_stride + words.start * PANEL);
        for _ in words {
            let columns: [[W::Right; V]; PANELS] = std::array::from_fn(|p| {
                std::array::from_fn(|v| W::right::<STEP>(right.add(p * block.panel_stride + v * W::LANES)))
            });
            for (r, sums) in sums.iter_mut().enumerate() {
                let word = W::left(left.add(r * block.left_stride));
                for (sums, columns) in sums.iter_mut().zip(columns) {
                    for (sums, column) in sums.iter_mut().zip(columns) {
                        *sums = W::add(*sums, word, column);
                    }
                }
            }
            left = left.add(W::STEPS);
            right = right.add(PANEL);
        }
    }
}

/// All rows by `PANELS` panels from `panel`, six rows at a time, or twelve where that many sums fit.
///
/// # Safety
///
/// As for [`strip`].
#[inline(always)]
unsafe fn rows<W: Words<V>, const V: usize, const PANELS: usize, const TWELVE: bool>(block: &Block, panel: usize) {
    let mut row = 0;
    // SAFETY: the caller's promise; strips end at the last row.
    unsafe {
        while TWELVE && row + 12 <= block.rows {
            strip::<W, V, 12, PANELS>(block, row, panel);
            row += 12;
        }
        while row + 6 <= block.rows {
            strip::<W, V, 6, PANELS>(block, row, panel);
            row += 6;
        }
        match block.rows - row {
            5 => strip::<W, V, 5, PANELS>(block, row, panel),
            4 => strip::<W, V, 4, PANELS>(block, row, panel),
            3 => strip::<W, V, 3, PANELS>(block, row, panel),
            2 => strip::<W, V, 2, PANELS>(block, row, panel),
            1 => strip::<W, V, 1, PANELS>(block, row, panel),
            _ => {}
        }
    }
}
