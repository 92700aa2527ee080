//! The micro-kernels of vectors: a few rows by one to four panels, with the accumulators in registers.
//!
//! ```text
//! lhs:  one k-group of each of ROWS rows, broadcast to all lanes
//! rhs:  one k-group of PANELS panels, V vectors each
//!
//!                rhs[0][0] .. rhs[0][V-1]  rhs[1][0] ..
//! lhs[0]     *   acc[0][0][0]              acc[0][1][0]
//! lhs[1]     *   acc[1][0][0]              acc[1][1][0]
//!   ..
//! ```

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod portable;

use std::ops::Range;

use super::{
    PANEL,
    block::{Block, Init, SUM_STRIDE},
};

/// Groups in which first all lower numbers are multiplied, then all upper ones: both at once need more registers than
/// there are.
const WIDENED_GROUPS: usize = 64;

/// The operations of a micro-kernel on an instruction set and a precision. Functions are inlined into one that is compiled for
/// those instructions, and all are unsafe because the CPU must have them and pointers must hold a vector.
trait MicroKernel<const V: usize> {
    /// `V` of them hold a row's sums of a panel.
    type Accumulator: Copy;
    /// A vector of the panel.
    type Rhs: Copy;
    /// A group of a row, in every lane.
    type Lhs: Copy;

    const LANES: usize = PANEL / V;
    /// Numbers of a group of the weights that are multiplied one after the other, each with a group of the row of its
    /// own: 1 or 2.
    const STEPS: usize = 1;

    unsafe fn zero() -> Self::Accumulator;
    unsafe fn load(from: *const u32) -> Self::Accumulator;
    unsafe fn store(to: *mut u32, sums: Self::Accumulator);
    unsafe fn rhs<const STEP: usize>(from: *const u32) -> Self::Rhs;
    unsafe fn lhs(from: *const u32) -> Self::Lhs;
    unsafe fn multiply_add(sums: Self::Accumulator, lhs: Self::Lhs, rhs: Self::Rhs) -> Self::Accumulator;
}

/// `ROWS` rows from `row` by `PANELS` panels from `panel`.
///
/// # Safety
///
/// The CPU has the instructions of `M`, and rows and panels are in the block.
#[inline(always)]
unsafe fn micro_tile<M: MicroKernel<V>, const V: usize, const ROWS: usize, const PANELS: usize>(
    block: &Block,
    row: usize,
    panel: usize,
) {
    // SAFETY: the caller's promise; a panel is `V` vectors, and there are as many groups as the block says.
    unsafe {
        let address =
            |r: usize, p: usize, v: usize| block.sums.add((row + r) * SUM_STRIDE + (panel + p) * PANEL + v * M::LANES);
        let mut accumulators = [[[M::zero(); V]; PANELS]; ROWS];
        if block.init == Init::Accumulate {
            for (r, accumulators) in accumulators.iter_mut().enumerate() {
                for (p, accumulators) in accumulators.iter_mut().enumerate() {
                    for (v, accumulator) in accumulators.iter_mut().enumerate() {
                        *accumulator = M::load(address(r, p, v));
                    }
                }
            }
        }
        if M::STEPS == 1 {
            k_loop::<M, V, ROWS, PANELS, 0>(block, [row, panel], 0..block.k_groups, &mut accumulators);
        } else {
            for group in (0..block.k_groups).step_by(WIDENED_GROUPS) {
                let groups = group..block.k_groups.min(group + WIDENED_GROUPS);
                k_loop::<M, V, ROWS, PANELS, 0>(block, [row, panel], groups.clone(), &mut accumulators);
                k_loop::<M, V, ROWS, PANELS, 1>(block, [row, panel], groups, &mut accumulators);
            }
        }
        for (r, accumulators) in accumulators.iter().enumerate() {
            for (p, accumulators) in accumulators.iter().enumerate() {
                for (v, accumulator) in accumulators.iter().enumerate() {
                    M::store(address(r, p, v), *accumulator);
                }
            }
        }
    }
}

/// Adds the products of number `STEP` of some groups to the accumulators.
///
/// # Safety
///
/// As for [`micro_tile`], and the groups are in the block.
#[inline(always)]
unsafe fn k_loop<M: MicroKernel<V>, const V: usize, const ROWS: usize, const PANELS: usize, const STEP: usize>(
    block: &Block,
    [row, panel]: [usize; 2],
    groups: Range<usize>,
    accumulators: &mut [[[M::Accumulator; V]; PANELS]; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut lhs = block.lhs.add(row * block.lhs_stride + groups.start * M::STEPS + STEP);
        let mut rhs = block.rhs.add(panel * block.panel_stride + groups.start * PANEL);
        for _ in groups {
            let columns: [[M::Rhs; V]; PANELS] = std::array::from_fn(|p| {
                std::array::from_fn(|v| M::rhs::<STEP>(rhs.add(p * block.panel_stride + v * M::LANES)))
            });
            for (r, accumulators) in accumulators.iter_mut().enumerate() {
                let broadcast = M::lhs(lhs.add(r * block.lhs_stride));
                for (accumulators, columns) in accumulators.iter_mut().zip(columns) {
                    for (accumulator, column) in accumulators.iter_mut().zip(columns) {
                        *accumulator = M::multiply_add(*accumulator, broadcast, column);
                    }
                }
            }
            lhs = lhs.add(M::STEPS);
            rhs = rhs.add(PANEL);
        }
    }
}

/// All rows by `PANELS` panels from `panel`, six rows at a time, or twelve where that many accumulators fit.
///
/// # Safety
///
/// As for [`micro_tile`].
#[inline(always)]
unsafe fn row_loop<M: MicroKernel<V>, const V: usize, const PANELS: usize, const TWELVE: bool>(
    block: &Block,
    panel: usize,
) {
    let mut row = 0;
    // SAFETY: the caller's promise; tiles end at the last row.
    unsafe {
        while TWELVE && row + 12 <= block.rows {
            micro_tile::<M, V, 12, PANELS>(block, row, panel);
            row += 12;
        }
        while row + 6 <= block.rows {
            micro_tile::<M, V, 6, PANELS>(block, row, panel);
            row += 6;
        }
        match block.rows - row {
            5 => micro_tile::<M, V, 5, PANELS>(block, row, panel),
            4 => micro_tile::<M, V, 4, PANELS>(block, row, panel),
            3 => micro_tile::<M, V, 3, PANELS>(block, row, panel),
            2 => micro_tile::<M, V, 2, PANELS>(block, row, panel),
            1 => micro_tile::<M, V, 1, PANELS>(block, row, panel),
            _ => {}
        }
    }
}
