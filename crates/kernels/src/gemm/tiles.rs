//! Products by tiles: two tiles of rows by two panels at a time, with the accumulators in four tiles.
//!
//! Tiles and vector units work in parallel, so the epilogue of a block runs while the next block is multiplied: some
//! rows after each step of `k`, from the first-level cache, where their sums have just been stored. Meanwhile the next
//! panels are prefetched into the second-level cache.

use std::{
    arch::x86_64::{_MM_HINT_T1, _mm_prefetch},
    marker::PhantomData,
    ops::Range,
};

use super::{
    L2_LHS_BYTES, PANEL,
    block::Init,
    epilogue::{BlockEpilogue, ColumnsEpilogue},
};
use crate::{
    amx::{TILE_ROWS, TileConfig, Tiles, dot_bf16, dot_u8_i8, load, store, zero},
    simd::{Kernel, Simd},
};

/// Groups in a row of a tile.
const TILE_GROUPS: usize = 16;
/// Rows and columns of a block: two tiles each way.
const BLOCK_SIZE: usize = 2 * TILE_ROWS;
/// Bytes from a row of sums to the next.
const SUM_STRIDE_BYTES: usize = BLOCK_SIZE * 4;
/// Groups of `k` in a chunk: two panels of it are 24 KiB, half of the first-level cache.
const CHUNK_GROUPS: usize = 192;

/// How two tiles are multiplied.
pub(super) trait Dot {
    /// # Safety
    ///
    /// Tiles are configured.
    unsafe fn dot<const C: u8, const A: u8, const B: u8>();
}

/// Tiles of pairs of bf16.
pub(super) struct Bf16;
/// Tiles of four bytes, unsigned on the left side.
pub(super) struct Int8;

impl Dot for Bf16 {
    #[inline(always)]
    unsafe fn dot<const C: u8, const A: u8, const B: u8>() {
        // SAFETY: the caller's promise.
        unsafe { dot_bf16::<C, A, B>() }
    }
}

impl Dot for Int8 {
    #[inline(always)]
    unsafe fn dot<const C: u8, const A: u8, const B: u8>() {
        // SAFETY: the caller's promise.
        unsafe { dot_u8_i8::<C, A, B>() }
    }
}

/// In what order a block of rows is multiplied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Groups of a row.
    k_groups: usize,
    /// Groups of the rows that stay in the second-level cache while the panels pass.
    kc: usize,
    /// Sums from a pair of panels to the next, or 0 where they do not wait in memory.
    pair_sums: usize,
    sums: usize,
}

impl Plan {
    /// A plan for `padded` rows and `panels` panels of `k_groups`.
    pub(super) fn new(padded: usize, k_groups: usize, panels: usize) -> Self {
        let kc = (L2_LHS_BYTES / (4 * padded) / CHUNK_GROUPS * CHUNK_GROUPS).max(CHUNK_GROUPS);
        let pair_sums = padded * BLOCK_SIZE;
        if k_groups <= CHUNK_GROUPS {
            Self { k_groups, kc, pair_sums: 0, sums: BLOCK_SIZE * BLOCK_SIZE }
        } else if k_groups <= kc {
            Self { k_groups, kc, pair_sums: 0, sums: pair_sums }
        } else {
            Self { k_groups, kc, pair_sums, sums: panels.div_ceil(2) * pair_sums }
        }
    }

    /// The number of sums that wait in memory.
    pub(super) fn sums(&self) -> usize {
        self.sums
    }

    /// The index of a block's first sum.
    fn sums_start(&self, row: usize, panel: usize) -> usize {
        if self.k_groups <= CHUNK_GROUPS { 0 } else { panel / 2 * self.pair_sums + row * BLOCK_SIZE }
    }
}

/// The product of a block of rows, of which `rows` are written.
pub(super) struct Product<'a, D> {
    plan: Plan,
    rows: usize,
    sums: &'a mut [u32],
    epilogue: BlockEpilogue<'a>,
    dot: PhantomData<D>,
}

impl<'a, D: Dot> Product<'a, D> {
    /// `sums` has room for those of the plan.
    pub(super) fn new(plan: Plan, rows: usize, sums: &'a mut [u32], epilogue: BlockEpilogue<'a>) -> Self {
        assert!(sums.len() >= plan.sums, "there is room for {} sums", plan.sums);
        Self { plan, rows, sums, epilogue, dot: PhantomData }
    }
}

impl<D: Dot> Kernel for Product<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        const CONFIG: TileConfig = TileConfig::full();
        let Self { plan, rows, sums, epilogue, .. } = self;
        let (weights, lhs) = (epilogue.weights, epilogue.lhs);
        let panels = weights.n().div_ceil(PANEL);
        let blocks = rows.div_ceil(BLOCK_SIZE);
        // Lines of each of the two next panels to prefetch at a step, so that all are there when the rows have passed.
        let prefetched_lines = TILE_GROUPS.div_ceil(blocks);
        let mut summed: Option<SummedBlock> = None;
        // SAFETY: the caller has found tiles, so the permission is given.
        let _tiles = unsafe { Tiles::configure(&CONFIG) };
        for from in (0..plan.k_groups).step_by(plan.kc) {
            let to = (from + plan.kc).min(plan.k_groups);
            for panel in (0..panels).step_by(2) {
                for group in (from..to).step_by(CHUNK_GROUPS) {
                    let groups = CHUNK_GROUPS.min(to - group);
                    let next =
                        if group + CHUNK_GROUPS < to { (panel, group + CHUNK_GROUPS) } else { (panel + 2, from) };
                    let next = weights.panel(0).wrapping_add((next.0 * plan.k_groups + next.1) * PANEL);
                    for block in 0..blocks {
                        let row = block * BLOCK_SIZE;
                        let steps = Steps {
                            lhs: lhs.start().wrapping_add(row * lhs.stride() + group).cast(),
                            lhs_stride: lhs.stride() * 4,
                            rhs: weights.panel(panel).wrapping_add(group * PANEL).cast(),
                            panel_bytes: plan.k_groups * PANEL * 4,
                            count: groups / TILE_GROUPS,
                            sums: sums[plan.sums_start(row, panel)..][..BLOCK_SIZE * BLOCK_SIZE].as_mut_ptr(),
                            init: if group == 0 { Init::Zero } else { Init::Accumulate },
                        };
                        let epilogue_rows = summed.as_ref().map_or(0, |summed| summed.rows.len().div_ceil(steps.count));
                        let prefetched = next.wrapping_add(block * steps.count * prefetched_lines * PANEL);
                        let overlapped =
                            Overlapped { simd, summed: summed.take(), epilogue_rows, prefetched, prefetched_lines };
                        let (lower, right) = (rows - row > TILE_ROWS, panel + 1 < panels);
                        // SAFETY: tiles are configured; the left side has `padded` rows, the panels lie one after
                        // another, and the slice of the sums is a whole block.
                        unsafe {
                            match (lower, right) {
                                (true, true) => steps.multiply::<D, S, true, true>(overlapped),
                                (true, false) => steps.multiply::<D, S, true, false>(overlapped),
                                (false, true) => steps.multiply::<D, S, false, true>(overlapped),
                                (false, false) => steps.multiply::<D, S, false, false>(overlapped),
                            }
                        }
                        if group + groups == plan.k_groups {
                            let columns = panel * PANEL..((panel + 2) * PANEL).min(weights.n());
                            let rows = row..(row + BLOCK_SIZE).min(rows);
                            summed = Some(SummedBlock { sums: steps.sums, rows, columns: epilogue.columns(columns) });
                        }
                    }
                }
            }
        }
        if let Some(mut summed) = summed {
            // SAFETY: the block's sums are stored, and no one else holds them.
            unsafe { summed.write_rows(simd, BLOCK_SIZE) };
        }
    }
}

/// A block whose sums are complete and whose epilogue has not run yet.
#[derive(Debug)]
struct SummedBlock<'a> {
    sums: *const u32,
    /// The rows that are not written yet.
    rows: Range<usize>,
    columns: ColumnsEpilogue<'a>,
}

impl SummedBlock<'_> {
    /// Runs the epilogue of the next `rows` rows.
    ///
    /// # Safety
    ///
    /// The sums can be read.
    #[inline(always)]
    unsafe fn write_rows<S: Simd>(&mut self, simd: S, rows: usize) {
        let end = self.rows.end.min(self.rows.start + rows);
        while self.rows.start < end {
            let row = self.rows.start;
            // SAFETY: the caller's promise: a row of a block has the sums of two panels.
            unsafe { self.columns.row(simd, self.sums.add(row % BLOCK_SIZE * BLOCK_SIZE), row) };
            self.rows.start += 1;
        }
    }
}

/// The work of the vector units while tiles multiply. A closure would not be compiled for the vectors of `S`.
struct Overlapped<'a, S> {
    simd: S,
    /// The previous block.
    summed: Option<SummedBlock<'a>>,
    /// Rows of it to write at a step.
    epilogue_rows: usize,
    /// The next line to prefetch of the first of the two next panels.
    prefetched: *const u32,
    /// Lines of each to prefetch at a step.
    prefetched_lines: usize,
}

impl<S: Simd> Overlapped<'_, S> {
    /// # Safety
    ///
    /// The sums can be read.
    #[inline(always)]
    unsafe fn step(&mut self, panel_bytes: usize) {
        for _ in 0..self.prefetched_lines {
            let line = self.prefetched.cast::<i8>();
            // SAFETY: a hint, for any address.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(line);
                _mm_prefetch::<_MM_HINT_T1>(line.wrapping_add(panel_bytes));
            }
            self.prefetched = self.prefetched.wrapping_add(PANEL);
        }
        if let Some(summed) = &mut self.summed {
            // SAFETY: the caller's promise.
            unsafe { summed.write_rows(self.simd, self.epilogue_rows) };
        }
    }
}

/// One chunk of `k` of a block: the steps of tiles that add its products to the sums.
#[derive(Debug, Clone, Copy)]
struct Steps {
    lhs: *const u8,
    lhs_stride: usize,
    rhs: *const u8,
    /// Bytes from a panel to the next.
    panel_bytes: usize,
    /// The number of steps.
    count: usize,
    sums: *mut u32,
    init: Init,
}

impl Steps {
    /// Multiplies one tile of rows, or two with `LOWER`, by one panel, or two with `SECOND`. `overlapped` does its part
    /// after each step.
    ///
    /// # Safety
    ///
    /// Tiles are configured, and the memory of all fields can be read or written.
    #[inline(always)]
    unsafe fn multiply<D: Dot, S: Simd, const LOWER: bool, const SECOND: bool>(
        &self,
        mut overlapped: Overlapped<'_, S>,
    ) {
        let stride = self.lhs_stride;
        let (below, right) = (TILE_ROWS * SUM_STRIDE_BYTES, PANEL * 4);
        let sums = self.sums.cast::<u8>();
        // SAFETY: the caller's promise.
        unsafe {
            if self.init == Init::Zero {
                zero::<0>();
                zero::<1>();
                zero::<2>();
                zero::<3>();
            } else {
                load::<0>(sums, SUM_STRIDE_BYTES);
                load::<1>(sums.add(right), SUM_STRIDE_BYTES);
                load::<2>(sums.add(below), SUM_STRIDE_BYTES);
                load::<3>(sums.add(below + right), SUM_STRIDE_BYTES);
            }
            let (mut upper, mut first) = (self.lhs, self.rhs);
            for _ in 0..self.count {
                load::<4>(upper, stride);
                load::<6>(first, PANEL * 4);
                if SECOND {
                    load::<7>(first.wrapping_add(self.panel_bytes), PANEL * 4);
                }
                D::dot::<0, 4, 6>();
                if LOWER {
                    load::<5>(upper.wrapping_add(TILE_ROWS * stride), stride);
                }
                if SECOND {
                    D::dot::<1, 4, 7>();
                }
                if LOWER {
                    D::dot::<2, 5, 6>();
                }
                if LOWER && SECOND {
                    D::dot::<3, 5, 7>();
                }
                overlapped.step(self.panel_bytes);
                upper = upper.wrapping_add(TILE_GROUPS * 4);
                first = first.wrapping_add(TILE_GROUPS * PANEL * 4);
            }
            store::<0>(sums, SUM_STRIDE_BYTES);
            if SECOND {
                store::<1>(sums.add(right), SUM_STRIDE_BYTES);
            }
            if LOWER {
                store::<2>(sums.add(below), SUM_STRIDE_BYTES);
            }
            if LOWER && SECOND {
                store::<3>(sums.add(below + right), SUM_STRIDE_BYTES);
            }
        }
    }
}

/// `count` products of two tiles, with all operands in registers.
///
/// # Safety
///
/// The CPU has tiles, and the permission to use them is given.
pub(super) unsafe fn products<D: Dot>(count: usize) {
    const CONFIG: TileConfig = TileConfig::full();
    // SAFETY: the caller's promise; tiles are zeroed before they are multiplied.
    unsafe {
        let _tiles = Tiles::configure(&CONFIG);
        zero::<4>();
        zero::<5>();
        zero::<6>();
        zero::<7>();
        for _ in 0..count / 4 {
            D::dot::<0, 4, 6>();
            D::dot::<1, 4, 7>();
            D::dot::<2, 5, 6>();
            D::dot::<3, 5, 7>();
        }
    }
}
