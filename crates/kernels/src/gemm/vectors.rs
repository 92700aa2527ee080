//! Products by vectors: four panels at a time over the rows of a block.

use super::{
    LEFT_BYTES, PANEL,
    block::{Block, SUM_STRIDE, Start},
    finish::{Columns, Finish},
};
use crate::{
    Isa,
    lanes::{Kernel, Lanes, run},
};

/// Panels that pass over a block of rows together.
pub(super) const GROUP: usize = 4;
/// Words of `k` in a chunk: four panels of it are 64 KiB.
pub(super) const CHUNK: usize = 256;

/// In what order a block of rows is multiplied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Words of a row.
    words: usize,
    /// Words of the rows that stay in the second cache while the panels pass.
    slab: usize,
    /// Groups whose sums wait: all when the slab is not the whole row.
    waiting: usize,
    /// Sums of a group.
    group_sums: usize,
}

impl Plan {
    /// For so many rows and panels of so many words, for each of which a row has `left_words`.
    pub(super) fn new(rows: usize, left_words: usize, words: usize, panels: usize) -> Self {
        let slab = (LEFT_BYTES / (4 * rows * left_words) / CHUNK * CHUNK).max(CHUNK);
        let waiting = if slab < words { panels.div_ceil(GROUP) } else { 1 };
        Self { words, slab, waiting, group_sums: rows * SUM_STRIDE }
    }

    /// How many sums wait in memory.
    pub(super) fn sums(&self) -> usize {
        self.waiting * self.group_sums
    }
}

/// Multiplies a block of `rows` rows; `sums` has room for those of the plan.
pub(super) fn multiply(isa: Isa, plan: Plan, rows: usize, sums: &mut [u32], finish: Finish<'_>) {
    let (weights, left) = (finish.weights, finish.left);
    let panels = weights.n().div_ceil(PANEL);
    for from in (0..plan.words).step_by(plan.slab) {
        let to = (from + plan.slab).min(plan.words);
        for panel in (0..panels).step_by(GROUP) {
            let group = GROUP.min(panels - panel);
            let sums = &mut sums[panel / GROUP % plan.waiting * plan.group_sums..][..plan.group_sums];
            for word in (from..to).step_by(CHUNK) {
                let block = Block {
                    left: left.words().wrapping_add(word * left.per_word()),
                    left_stride: left.stride(),
                    rows,
                    right: weights.panel(panel).wrapping_add(word * PANEL),
                    panel_stride: plan.words * PANEL,
                    panels: group,
                    words: CHUNK.min(to - word),
                    sums: sums.as_mut_ptr(),
                    start: if word == 0 { Start::Zero } else { Start::Sums },
                };
                // SAFETY: the left side has so many rows of `stride` words of which `words` are the weights', the
                // group's panels lie one after another, and `sums` has room for a group's columns of every row.
                unsafe { block.multiply(isa, weights.precision()) };
            }
            if to == plan.words {
                let columns = panel * PANEL..((panel + group) * PANEL).min(weights.n());
                run(isa, FinishRows { columns: finish.columns(columns), sums, rows });
            }
        }
    }
}

struct FinishRows<'a> {
    columns: Columns<'a>,
    sums: &'a [u32],
    rows: usize,
}

impl Kernel for FinishRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, simd: S) {
        for (row, sums) in self.sums.chunks_exact(SUM_STRIDE).enumerate().take(self.rows) {
            // SAFETY: a row has sums of four panels, and the columns are those of a group.
            unsafe { self.columns.row(simd, sums.as_ptr(), row) };
        }
    }
}
