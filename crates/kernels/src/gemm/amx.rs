//! Blocks by tiles: two tiles of rows by two panels at a time, sums in four tiles.

use super::{
    PANEL,
    block::{Block, SUM_STRIDE, Start},
};
use crate::amx::{TILE_ROWS, TileConfig, Tiles, dot_bf16, dot_u8_i8, load, store, zero};

/// Words of a tile's row.
const TILE_WORDS: usize = 16;
/// Bytes from a row of sums to the next.
const SUM_BYTES: usize = SUM_STRIDE * 4;

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

/// # Safety
///
/// As for [`Block::multiply`].
pub(super) unsafe fn multiply<D: Dot>(block: &Block) {
    const CONFIG: TileConfig = TileConfig::full();
    // SAFETY: the caller has found tiles, so the permission is given; all places are inside the block, whose rows are a
    // multiple of two tiles and whose words are a multiple of a tile's.
    unsafe {
        let _tiles = Tiles::configure(&CONFIG);
        for panel in (0..block.panels).step_by(2) {
            for row in (0..block.rows).step_by(2 * TILE_ROWS) {
                if panel + 1 < block.panels {
                    two_panels::<D>(block, row, panel);
                } else {
                    one_panel::<D>(block, row, panel);
                }
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

/// # Safety
///
/// Tiles are configured; 32 rows from `row` and two panels from `panel` are in the block.
#[inline(always)]
unsafe fn two_panels<D: Dot>(block: &Block, row: usize, panel: usize) {
    let stride = block.left_stride * 4;
    // SAFETY: the caller's promise.
    unsafe {
        let sums = block.sums.add(row * SUM_STRIDE + panel * PANEL).cast::<u8>();
        let (below, beside) = (TILE_ROWS * SUM_BYTES, PANEL * 4);
        if block.start == Start::Zero {
            zero::<0>();
            zero::<1>();
            zero::<2>();
            zero::<3>();
        } else {
            load::<0>(sums, SUM_BYTES);
            load::<1>(sums.add(beside), SUM_BYTES);
            load::<2>(sums.add(below), SUM_BYTES);
            load::<3>(sums.add(below + beside), SUM_BYTES);
        }
        let mut upper = block.left.add(row * block.left_stride).cast::<u8>();
        let mut lower = upper.add(TILE_ROWS * stride);
        let mut first = block.right.add(panel * block.panel_stride).cast::<u8>();
        let mut second = first.add(block.panel_stride * 4);
        for _ in 0..block.words / TILE_WORDS {
            load::<4>(upper, stride);
            load::<6>(first, PANEL * 4);
            load::<7>(second, PANEL * 4);
            D::dot::<0, 4, 6>();
            load::<5>(lower, stride);
            D::dot::<1, 4, 7>();
            D::dot::<2, 5, 6>();
            D::dot::<3, 5, 7>();
            upper = upper.wrapping_add(TILE_WORDS * 4);
            lower = lower.wrapping_add(TILE_WORDS * 4);
            first = first.wrapping_add(TILE_WORDS * PANEL * 4);
            second = second.wrapping_add(TILE_WORDS * PANEL * 4);
        }
        store::<0>(sums, SUM_BYTES);
        store::<1>(sums.add(beside), SUM_BYTES);
        store::<2>(sums.add(below), SUM_BYTES);
        store::<3>(sums.add(below + beside), SUM_BYTES);
    }
}

/// # Safety
///
/// As for [`two_panels`], with one panel.
#[inline(always)]
unsafe fn one_panel<D: Dot>(block: &Block, row: usize, panel: usize) {
    let stride = block.left_stride * 4;
    // SAFETY: the caller's promise.
    unsafe {
        let sums = block.sums.add(row * SUM_STRIDE + panel * PANEL).cast::<u8>();
        let below = TILE_ROWS * SUM_BYTES;
        if block.start == Start::Zero {
            zero::<0>();
            zero::<2>();
        } else {
            load::<0>(sums, SUM_BYTES);
            load::<2>(sums.add(below), SUM_BYTES);
        }
        let mut upper = block.left.add(row * block.left_stride).cast::<u8>();
        let mut right = block.right.add(panel * block.panel_stride).cast::<u8>();
        for _ in 0..block.words / TILE_WORDS {
            load::<4>(upper, stride);
            load::<5>(upper.wrapping_add(TILE_ROWS * stride), stride);
            load::<6>(right, PANEL * 4);
            D::dot::<0, 4, 6>();
            D::dot::<2, 5, 6>();
            upper = upper.wrapping_add(TILE_WORDS * 4);
            right = right.wrapping_add(TILE_WORDS * PANEL * 4);
        }
        store::<0>(sums, SUM_BYTES);
        store::<2>(sums.add(below), SUM_BYTES);
    }
}
