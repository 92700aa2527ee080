//! Prints the throughput of one core in the encoder's matrix products, and its share of the peak of the instructions.
//!
//! Rows and results are laid out as in the encoder: in whole cache lines, in bf16 between the maps unless all is in
//! f32. Every call uses different weights, as every layer does, so they come from memory or the last-level cache.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::time::Instant;

use polylance_kernels::{Buffer, Epilogue, Isa, PackedWeights, Precision, Rows, RowsMut, matmul, peak};

/// The maps of a layer, with the row sizes before and after each.
const MAPS: [(&str, usize, usize); 8] = [
    ("query, key, value", 384, 1152),
    ("attention output", 384, 384),
    ("intermediate", 384, 1536),
    ("output", 1536, 384),
    ("query, key, value", 2560, 7680),
    ("attention output", 2560, 2560),
    ("intermediate", 2560, 10240),
    ("output", 10240, 2560),
];

fn main() {
    let isas: Vec<Isa> = match std::env::args().nth(1) {
        Some(name) => vec![name.parse().expect("an instruction set")],
        None => Isa::available().collect(),
    };
    for isa in isas {
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let peak = peak(isa, precision);
            println!("{isa} {precision:?}: peak {:.0} G/s", peak / 1e9);
            for (map, k, n) in MAPS {
                for rows in [16, 128, 512] {
                    let reached = throughput(isa, precision, rows, map, k, n);
                    println!("  {map:18} {rows:4} x {k:5} x {n:5}: {:6.0} G/s, {:.2}", reached / 1e9, reached / peak);
                }
            }
        }
    }
}

/// Operations per second, the best of several measurements.
fn throughput(isa: Isa, precision: Precision, m: usize, map: &str, k: usize, n: usize) -> f64 {
    let layers = (8 << 20) / (k * n) + 1;
    let weights = |layer: usize| {
        PackedWeights::new(precision, n, k, |row, numbers| {
            let number = |at: usize| ((row * 31 + at * 17 + layer) % 97) as f32 / 97.0 - 0.5;
            numbers.iter_mut().enumerate().for_each(|(at, x)| *x = number(at));
        })
    };
    let weights: Vec<_> = (0..layers).map(weights).collect();
    let bias = vec![0.1; n];
    let epilogue = match map {
        "intermediate" => Epilogue::BiasGelu(&bias),
        "query, key, value" => Epilogue::Bias(&bias),
        _ => Epilogue::BiasAdd(&bias),
    };
    let (mut x, mut out) = (Buffer::default(), Buffer::default());
    let padded = m.next_multiple_of(32) * k;
    // States stay f32 where a product has no rounded form of them.
    let f32_in = precision == Precision::F32 || (precision == Precision::Int8 && k < n);
    let f32_out = precision == Precision::F32 || matches!(epilogue, Epilogue::BiasAdd(_));
    let mut best = f64::INFINITY;
    for _ in 0..6 {
        let started = Instant::now();
        for weights in &weights {
            let x = if f32_in { Rows::F32(x.f32(padded)) } else { Rows::Bf16(x.bf16(padded)) };
            let out = if f32_out { RowsMut::F32(out.f32(m * n)) } else { RowsMut::Bf16(out.bf16(m * n)) };
            matmul(isa, x, weights, epilogue, out);
        }
        best = best.min(started.elapsed().as_secs_f64());
    }
    (2 * m * k * n * layers) as f64 / best
}
