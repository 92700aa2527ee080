//! The peak of this machine's instructions for a product, with almost no memory reads: what kernels are measured
//! against.

use std::time::{Duration, Instant};

#[cfg(target_arch = "x86_64")]
use super::tiles;
use super::{
    PANEL, Precision,
    block::{Block, Init, MAX_PANELS, SUM_STRIDE},
    dispatch,
    vectors::CHUNK_GROUPS,
};
use crate::{Isa, aligned::Scratch};

/// The approximate time of one measurement.
const MEASUREMENT_TIME: Duration = Duration::from_millis(20);
const MEASUREMENTS: usize = 5;
/// Rows of one micro-tile of vectors, or of two.
const BLOCK_ROWS: usize = 12;

/// Operations per second of one thread (a multiplication and an addition are two), the best of several measurements: of
/// tiles with all operands in registers, and of vectors with operands in the first-level cache, because each of their
/// products reads one of them.
pub fn peak(isa: Isa, precision: Precision) -> f64 {
    let isa = isa.min(Isa::best());
    #[cfg(target_arch = "x86_64")]
    if precision.tiled(isa) {
        // A product of two tiles: 16 by 16 sums of 16 groups each.
        let operations = 1024 * 2 * 16 * 16 * 16 * precision.numbers_per_group();
        // SAFETY: `isa` is what the CPU has, and it has tiles.
        return rate(operations as f64, || unsafe {
            match precision {
                Precision::Int8 => tiles::products::<tiles::Int8>(1024),
                Precision::F32 | Precision::Bf16 => tiles::products::<tiles::Bf16>(1024),
            }
        });
    }
    let (k_groups, panels) = (CHUNK_GROUPS / 2, MAX_PANELS);
    let mut scratch = Scratch::new();
    let lhs_groups = k_groups * precision.lhs_groups(isa);
    let sizes = [BLOCK_ROWS * lhs_groups, panels * k_groups * PANEL, BLOCK_ROWS * SUM_STRIDE].map(|len| len * 4);
    let mut slices = scratch.slices(&sizes);
    let (lhs, rhs) = (slices.take::<u32>(BLOCK_ROWS * lhs_groups), slices.take::<u32>(panels * k_groups * PANEL));
    let sums = slices.take::<u32>(BLOCK_ROWS * SUM_STRIDE);
    let block = Block {
        lhs: lhs.as_ptr(),
        lhs_stride: lhs_groups,
        rows: BLOCK_ROWS,
        rhs: rhs.as_ptr(),
        panel_stride: k_groups * PANEL,
        panels,
        k_groups,
        sums: sums.as_mut_ptr(),
        init: Init::Zero,
    };
    let operations = 2 * BLOCK_ROWS * panels * PANEL * k_groups * precision.numbers_per_group();
    // SAFETY: all operands are as large as the block says.
    rate(operations as f64, || unsafe { dispatch::multiply(std::hint::black_box(&block), isa, precision) })
}

/// Operations per second, where one call of `work` does `operations`.
fn rate(operations: f64, work: impl Fn()) -> f64 {
    let run = |times: u32| {
        let started = Instant::now();
        (0..times).for_each(|_| work());
        started.elapsed()
    };
    let times = (MEASUREMENT_TIME.as_secs_f64() / run(16).as_secs_f64() * 16.0).ceil().min(1e8) as u32;
    let best = (0..MEASUREMENTS).map(|_| run(times)).min().unwrap_or(MEASUREMENT_TIME);
    operations * f64::from(times) / best.as_secs_f64()
}
