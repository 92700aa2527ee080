//! A block of rows by some panels: the part of a product that one micro-kernel call computes.

use super::PANEL;

/// The largest number of panels in a block.
pub(super) const MAX_PANELS: usize = 4;
/// Sums from a row to the next.
pub(super) const SUM_STRIDE: usize = MAX_PANELS * PANEL;

/// The initial value of the accumulators of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Init {
    /// Zero: the first chunk of `k`.
    Zero,
    /// The sums of the previous chunk, from memory.
    Accumulate,
}

/// `sums[rows, MAX_PANELS * PANEL] += lhs[rows, k_groups] · rhs[panels, k_groups, PANEL]`. Where [`Precision::widens`],
/// the left side has two f32 for each group of the right side, and the strides count those.
///
/// [`Precision::widens`]: super::Precision::widens
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// The first row's first group of the chunk.
    pub(super) lhs: *const u32,
    /// Groups from a row to the next.
    pub(super) lhs_stride: usize,
    pub(super) rows: usize,
    /// The first panel's groups of the chunk.
    pub(super) rhs: *const u32,
    /// Groups from a panel to the next.
    pub(super) panel_stride: usize,
    /// At most [`MAX_PANELS`].
    pub(super) panels: usize,
    /// Groups in the chunk, a multiple of 16.
    pub(super) k_groups: usize,
    /// f32, or i32 for int8.
    pub(super) sums: *mut u32,
    pub(super) init: Init,
}
