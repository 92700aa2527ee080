//! What this machine's instructions for a product reach when next to nothing is read: the measure of all kernels.

use std::time::{Duration, Instant};

#[cfg(target_arch = "x86_64")]
use super::tiles;
use super::{
    PANEL, Precision,
    block::{Block, SUM_STRIDE, Start},
    vectors::{CHUNK, GROUP},
};
use crate::{Isa, aligned::Scratch};

/// How long one try takes, about.
const TRY: Duration = Duration::from_millis(20);
const TRIES: usize = 5;
/// Rows of a strip of vectors, or of two.
const ROWS: usize = 12;

/// Operations a second (a multiplication and an addition are two) of one thread, the best of some tries: of tiles in
/// registers alone, and of vectors with operands in the first cache, as each of their products reads one of them.
pub fn peak(isa: Isa, precision: Precision) -> f64 {
    let isa = isa.min(Isa::best());
    #[cfg(target_arch = "x86_64")]
    if precision.tiled(isa) {
        // A product of two tiles: 16 by 16 sums of 16 words each.
        let operations = 1024 * 2 * 16 * 16 * 16 * precision.per_word();
        // SAFETY: `isa` is what the CPU has, and it has tiles.
        return rate(operations as f64, || unsafe {
            match precision {
                Precision::Int8 => tiles::products::<tiles::Int8>(1024),
                Precision::F32 | Precision::Bf16 => tiles::products::<tiles::Bf16>(1024),
            }
        });
    }
    let (words, panels) = (CHUNK / 2, GROUP);
    let mut scratch = Scratch::new();
    let left_words = words * precision.left_words(isa);
    let sizes = [ROWS * left_words, panels * words * PANEL, ROWS * SUM_STRIDE].map(|words| words * 4);
    let mut room = scratch.room(&sizes);
    let (left, right) = (room.take::<u32>(ROWS * left_words), room.take::<u32>(panels * words * PANEL));
    let sums = room.take::<u32>(ROWS * SUM_STRIDE);
    let block = Block {
        left: left.as_ptr(),
        left_stride: left_words,
        rows: ROWS,
        right: right.as_ptr(),
        panel_stride: words * PANEL,
        panels,
        words,
        sums: sums.as_mut_ptr(),
        start: Start::Zero,
    };
    let operations = 2 * ROWS * panels * PANEL * words * precision.per_word();
    // SAFETY: all operands are as large as the block says.
    rate(operations as f64, || unsafe { std::hint::black_box(&block).multiply(isa, precision) })
}

/// How many of these operations a second, when `work` does so many.
fn rate(operations: f64, work: impl Fn()) -> f64 {
    let run = |times: u32| {
        let started = Instant::now();
        (0..times).for_each(|_| work());
        started.elapsed()
    };
    let times = (TRY.as_secs_f64() / run(16).as_secs_f64() * 16.0).ceil().min(1e8) as u32;
    let best = (0..TRIES).map(|_| run(times)).min().unwrap_or(TRY);
    operations * f64::from(times) / best.as_secs_f64()
}
