//! Products by vectors: up to four panels at a time over the rows of a block.

use super::{
    L2_LHS_BYTES, PANEL,
    block::{Block, Init, MAX_PANELS, SUM_STRIDE},
    dispatch,
    epilogue::{BlockEpilogue, ColumnsEpilogue},
};
use crate::{
    Isa,
    simd::{Kernel, Simd, run},
};

/// Groups of `k` in a chunk: four panels of it are 64 KiB.
pub(super) const CHUNK_GROUPS: usize = 256;

/// In what order a block of rows is multiplied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Groups of a row.
    k_groups: usize,
    /// Groups of the rows that stay in the second-level cache while the panels pass.
    kc: usize,
    /// Panel sets whose sums wait in memory: all of them when `kc` is less than a row.
    waiting: usize,
    /// Sums of a set of panels.
    set_sums: usize,
}

impl Plan {
    /// A plan for `rows` rows and `panels` panels of `k_groups`, for each of which a row has `lhs_groups`.
    pub(super) fn new(rows: usize, lhs_groups: usize, k_groups: usize, panels: usize) -> Self {
        let kc = (L2_LHS_BYTES / (4 * rows * lhs_groups) / CHUNK_GROUPS * CHUNK_GROUPS).max(CHUNK_GROUPS);
        let waiting = if kc < k_groups { panels.div_ceil(MAX_PANELS) } else { 1 };
        Self { k_groups, kc, waiting, set_sums: rows * SUM_STRIDE }
    }

    /// The number of sums that wait in memory.
    pub(super) fn sums(&self) -> usize {
        self.waiting * self.set_sums
    }
}

/// Multiplies a block of `rows` rows; `sums` has room for those of the plan.
pub(super) fn multiply(isa: Isa, plan: Plan, rows: usize, sums: &mut [u32], epilogue: BlockEpilogue<'_>) {
    let (weights, lhs) = (epilogue.weights, epilogue.lhs);
    let all_panels = weights.n().div_ceil(PANEL);
    for from in (0..plan.k_groups).step_by(plan.kc) {
        let to = (from + plan.kc).min(plan.k_groups);
        for panel in (0..all_panels).step_by(MAX_PANELS) {
            let panels = MAX_PANELS.min(all_panels - panel);
            let sums = &mut sums[panel / MAX_PANELS % plan.waiting * plan.set_sums..][..plan.set_sums];
            for group in (from..to).step_by(CHUNK_GROUPS) {
                let block = Block {
                    lhs: lhs.start().wrapping_add(group * lhs.groups_per_rhs_group()),
                    lhs_stride: lhs.stride(),
                    rows,
                    rhs: weights.panel(panel).wrapping_add(group * PANEL),
                    panel_stride: plan.k_groups * PANEL,
                    panels,
                    k_groups: CHUNK_GROUPS.min(to - group),
                    sums: sums.as_mut_ptr(),
                    init: if group == 0 { Init::Zero } else { Init::Accumulate },
                };
                // SAFETY: the left side has `rows` rows of `stride` groups, of which `k_groups` are the weights', the
                // panels lie one after another, and `sums` has room for their columns of every row.
                unsafe { dispatch::multiply(&block, isa, weights.precision()) };
            }
            if to == plan.k_groups {
                let columns = panel * PANEL..((panel + panels) * PANEL).min(weights.n());
                run(isa, RunEpilogue { columns: epilogue.columns(columns), sums, rows });
            }
        }
    }
}

struct RunEpilogue<'a> {
    columns: ColumnsEpilogue<'a>,
    sums: &'a [u32],
    rows: usize,
}

impl Kernel for RunEpilogue<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (row, sums) in self.sums.chunks_exact(SUM_STRIDE).enumerate().take(self.rows) {
            // SAFETY: a row has sums of `MAX_PANELS` panels, and the columns are those of at most as many.
            unsafe { self.columns.row(simd, sums.as_ptr(), row) };
        }
    }
}
