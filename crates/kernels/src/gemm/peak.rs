//! What this machine's instructions for a product reach when nothing is read: the measure of all kernels.

use std::time::{Duration, Instant};

use super::{
    CHUNK, GROUP, PANEL, Precision, ROW_STEP,
    block::{Block, SUM_STRIDE, Start},
};
use crate::{Isa, aligned::Scratch};

/// How long one try takes, about.
const TRY: Duration = Duration::from_millis(20);
const TRIES: usize = 5;

/// Operations a second (a multiplication and an addition are two) of one thread in a product whose operands stay in the
/// first cache, the best of some tries: what the instructions of `isa` give, less the loads that every product has.
pub fn peak(isa: Isa, precision: Precision) -> f64 {
    let isa = isa.min(Isa::best());
    // Half a chunk of two panels and one strip of rows fit the first cache together.
    let (rows, words) = (if isa == Isa::Amx { ROW_STEP } else { 6 }, CHUNK / 4);
    let panels = if isa == Isa::Amx { 2 } else { GROUP };
    let mut scratch = Scratch::new();
    let sizes = [rows * words, panels * words * PANEL, rows * SUM_STRIDE].map(|words| words * 4);
    let mut room = scratch.room(&sizes);
    let (left, right) = (room.take::<u32>(rows * words), room.take::<u32>(panels * words * PANEL));
    let sums = room.take::<u32>(rows * SUM_STRIDE);
    let block = Block {
        left: left.as_ptr(),
        left_stride: words,
        rows,
        right: right.as_ptr(),
        panel_stride: words * PANEL,
        panels,
        words,
        sums: sums.as_mut_ptr(),
        start: Start::Zero,
    };
    let operations = (2 * rows * panels * PANEL * words * precision.per_word()) as f64;
    let once = |times: u32| {
        let started = Instant::now();
        for _ in 0..times {
            // SAFETY: all operands are as large as the block says, and rows are two tiles where there are tiles.
            unsafe { std::hint::black_box(&block).multiply(isa, precision) };
        }
        started.elapsed()
    };
    let times = (TRY.as_secs_f64() / once(16).as_secs_f64() * 16.0).ceil().min(1e8) as u32;
    let best = (0..TRIES).map(|_| once(times)).min().unwrap_or(TRY);
    operations * f64::from(times) / best.as_secs_f64()
}
