//! Products by tiles: two tiles of rows by two panels at a time, sums in four tiles.
//!
//! Tiles multiply beside the vectors, so the sums of a block are finished while the next block is multiplied: some rows
//! after each step of `k`, from the first cache, where they have just been stored. The panels that come next are asked
//! into the second cache meanwhile.

use std::{
    arch::x86_64::{_MM_HINT_T1, _mm_prefetch},
    marker::PhantomData,
    ops::Range,
};

use super::{
    LEFT_BYTES, PANEL,
    finish::{Columns, Finish},
};
use crate::{
    amx::{TILE_ROWS, TileConfig, Tiles, dot_bf16, dot_u8_i8, load, store, zero},
    lanes::{Kernel, Lanes},
};

/// Words of a tile's row.
const TILE_WORDS: usize = 16;
/// Rows and columns of a block: two tiles each way.
const BLOCK: usize = 2 * TILE_ROWS;
/// Bytes from a row of sums to the next.
const SUM_BYTES: usize = BLOCK * 4;
/// Words of `k` in a chunk: two panels of it are 24 KiB, half of the first cache.
const CHUNK: usize = 192;

/// How two tiles are multiplied.
pub(super) trait Dot {
    /// # Safety
    ///
    /// Tiles are configured.
    unsafe fn dot<const C: u8, const A: u8, const B: u8>();
}

/// Tiles of pairs of bf16.
pub(super) struct Bf16;
/// Tiles of four bytes, rows without sign.
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
    /// Words of a row.
    words: usize,
    /// Words of the rows that stay in the second cache while the panels pass.
    slab: usize,
    /// Sums from a pair of panels to the next, or 0 where they do not wait.
    pair_sums: usize,
    sums: usize,
}

impl Plan {
    /// For `padded` rows and `panels` of so many words.
    pub(super) fn new(padded: usize, words: usize, panels: usize) -> Self {
        let slab = (LEFT_BYTES / (4 * padded) / CHUNK * CHUNK).max(CHUNK);
        let block = padded * BLOCK;
        if words <= CHUNK {
            Self { words, slab, pair_sums: 0, sums: BLOCK * BLOCK }
        } else if words <= slab {
            Self { words, slab, pair_sums: 0, sums: block }
        } else {
            Self { words, slab, pair_sums: block, sums: panels.div_ceil(2) * block }
        }
    }

    /// How many sums wait in memory.
    pub(super) fn sums(&self) -> usize {
        self.sums
    }

    /// Where the sums of a block wait.
    fn place(&self, row: usize, panel: usize) -> usize {
        if self.words <= CHUNK { 0 } else { panel / 2 * self.pair_sums + row * BLOCK }
    }
}

/// The product of a block of rows, `rows` of which are to be written.
pub(super) struct Product<'a, D> {
    plan: Plan,
    rows: usize,
    sums: &'a mut [u32],
    finish: Finish<'a>,
    dot: PhantomData<D>,
}

impl<'a, D: Dot> Product<'a, D> {
    /// `sums` has room for those of the plan.
    pub(super) fn new(plan: Plan, rows: usize, sums: &'a mut [u32], finish: Finish<'a>) -> Self {
        assert!(sums.len() >= plan.sums, "there is room for {} sums", plan.sums);
        Self { plan, rows, sums, finish, dot: PhantomData }
    }
}

impl<D: Dot> Kernel for Product<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, simd: S) {
        const CONFIG: TileConfig = TileConfig::full();
        let Self { plan, rows, sums, finish, .. } = self;
        let (weights, left) = (finish.weights, finish.left);
        let panels = weights.n().div_ceil(PANEL);
        let blocks = rows.div_ceil(BLOCK);
        // Lines of each of the two next panels to be asked for at a step, so that all are when the rows have passed.
        let ahead = TILE_WORDS.div_ceil(blocks);
        let mut summed: Option<Summed> = None;
        // SAFETY: the caller has found tiles, so the permission is given.
        let _tiles = unsafe { Tiles::configure(&CONFIG) };
        for from in (0..plan.words).step_by(plan.slab) {
            let to = (from + plan.slab).min(plan.words);
            for panel in (0..panels).step_by(2) {
                for word in (from..to).step_by(CHUNK) {
                    let words = CHUNK.min(to - word);
                    let next = if word + CHUNK < to { (panel, word + CHUNK) } else { (panel + 2, from) };
                    let next = weights.panel(0).wrapping_add((next.0 * plan.words + next.1) * PANEL);
                    for block in 0..blocks {
                        let row = block * BLOCK;
                        let steps = Steps {
                            left: left.words().wrapping_add(row * left.stride() + word).cast(),
                            left_stride: left.stride() * 4,
                            right: weights.panel(panel).wrapping_add(word * PANEL).cast(),
                            panel_bytes: plan.words * PANEL * 4,
                            count: words / TILE_WORDS,
                            sums: sums[plan.place(row, panel)..][..BLOCK * BLOCK].as_mut_ptr(),
                            zero: word == 0,
                        };
                        let at_once = summed.as_ref().map_or(0, |summed| summed.rows.len().div_ceil(steps.count));
                        let asked = next.wrapping_add(block * steps.count * ahead * PANEL);
                        let beside = Beside { simd, summed: summed.take(), at_once, asked, ahead };
                        let (lower, right) = (rows - row > TILE_ROWS, panel + 1 < panels);
                        // SAFETY: tiles are configured; the left side has `padded` rows, the panels lie one after
                        // another, and the slice of the sums is a whole block.
                        unsafe {
                            match (lower, right) {
                                (true, true) => steps.multiply::<D, S, true, true>(beside),
                                (true, false) => steps.multiply::<D, S, true, false>(beside),
                                (false, true) => steps.multiply::<D, S, false, true>(beside),
                                (false, false) => steps.multiply::<D, S, false, false>(beside),
                            }
                        }
                        if word + words == plan.words {
                            let columns = panel * PANEL..((panel + 2) * PANEL).min(weights.n());
                            let rows = row..(row + BLOCK).min(rows);
                            summed = Some(Summed { sums: steps.sums, rows, columns: finish.columns(columns) });
                        }
                    }
                }
            }
        }
        if let Some(mut summed) = summed {
            // SAFETY: the block's sums are stored, and no one else holds them.
            unsafe { summed.finish(simd, BLOCK) };
        }
    }
}

/// A block whose sums are there.
#[derive(Debug)]
struct Summed<'a> {
    sums: *const u32,
    /// Those that are not finished.
    rows: Range<usize>,
    columns: Columns<'a>,
}

impl Summed<'_> {
    /// Finishes so many rows more.
    ///
    /// # Safety
    ///
    /// The sums can be read.
    #[inline(always)]
    unsafe fn finish<S: Lanes>(&mut self, simd: S, rows: usize) {
        let end = self.rows.end.min(self.rows.start + rows);
        while self.rows.start < end {
            let row = self.rows.start;
            // SAFETY: the caller's promise: a row of a block has two panels of them.
            unsafe { self.columns.row(simd, self.sums.add(row % BLOCK * BLOCK), row) };
            self.rows.start += 1;
        }
    }
}

/// What is done while tiles multiply. A closure would not be compiled for the vectors of `S`.
struct Beside<'a, S> {
    simd: S,
    /// What the block before left.
    summed: Option<Summed<'a>>,
    /// Rows of it to be finished at a step.
    at_once: usize,
    /// The next line of the first of the two panels that come next.
    asked: *const u32,
    /// Lines of each to be asked for at a step.
    ahead: usize,
}

impl<S: Lanes> Beside<'_, S> {
    /// # Safety
    ///
    /// The sums can be read.
    #[inline(always)]
    unsafe fn step(&mut self, panel_bytes: usize) {
        for _ in 0..self.ahead {
            let line = self.asked.cast::<i8>();
            // SAFETY: a hint, for any address.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(line);
                _mm_prefetch::<_MM_HINT_T1>(line.wrapping_add(panel_bytes));
            }
            self.asked = self.asked.wrapping_add(PANEL);
        }
        if let Some(summed) = &mut self.summed {
            // SAFETY: the caller's promise.
            unsafe { summed.finish(self.simd, self.at_once) };
        }
    }
}

/// A block of sums and the steps that lead to them.
#[derive(Debug, Clone, Copy)]
struct Steps {
    left: *const u8,
    left_stride: usize,
    right: *const u8,
    /// Bytes from a panel to the next.
    panel_bytes: usize,
    /// How many.
    count: usize,
    sums: *mut u32,
    /// Whether sums begin at zero, not where they are.
    zero: bool,
}

impl Steps {
    /// Two tiles of rows where there is a `LOWER` one, by two panels where there is a `SECOND` one; `beside` is done
    /// after each step.
    ///
    /// # Safety
    ///
    /// Tiles are configured, and all that the fields say can be read and written.
    #[inline(always)]
    unsafe fn multiply<D: Dot, S: Lanes, const LOWER: bool, const SECOND: bool>(&self, mut beside: Beside<'_, S>) {
        let stride = self.left_stride;
        let (below, right) = (TILE_ROWS * SUM_BYTES, PANEL * 4);
        let sums = self.sums.cast::<u8>();
        // SAFETY: the caller's promise.
        unsafe {
            if self.zero {
                zero::<0>();
                zero::<1>();
                zero::<2>();
                zero::<3>();
            } else {
                load::<0>(sums, SUM_BYTES);
                load::<1>(sums.add(right), SUM_BYTES);
                load::<2>(sums.add(below), SUM_BYTES);
                load::<3>(sums.add(below + right), SUM_BYTES);
            }
            let (mut upper, mut first) = (self.left, self.right);
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
                beside.step(self.panel_bytes);
                upper = upper.wrapping_add(TILE_WORDS * 4);
                first = first.wrapping_add(TILE_WORDS * PANEL * 4);
            }
            store::<0>(sums, SUM_BYTES);
            if SECOND {
                store::<1>(sums.add(right), SUM_BYTES);
            }
            if LOWER {
                store::<2>(sums.add(below), SUM_BYTES);
            }
            if LOWER && SECOND {
                store::<3>(sums.add(below + right), SUM_BYTES);
            }
        }
    }
}

/// So many products of two tiles, of nothing but registers.
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
