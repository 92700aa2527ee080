//! Prints what one core reaches in matrix products of the encoder's shapes, beside the peak of its instructions.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::time::Instant;

use polylance_kernels::{Epilogue, Isa, PackedWeights, Precision, Rows, RowsMut, matmul, peak};

fn main() {
    let shapes = [(384, 1152), (384, 384), (384, 1536), (1536, 384), (2560, 7680), (2560, 10240), (10240, 2560)];
    let isas: Vec<Isa> = match std::env::args().nth(1) {
        Some(word) => vec![word.parse().expect("an instruction set")],
        None => Isa::available().collect(),
    };
    for isa in isas {
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let peak = peak(isa, precision);
            println!("{isa} {precision:?}: peak {:.0} G/s", peak / 1e9);
            for (k, n) in shapes {
                for m in [16, 128, 512] {
                    let reached = throughput(isa, precision, m, k, n);
                    println!("  {m:5} x {k:5} x {n:5}: {:7.0} G/s, {:.2}", reached / 1e9, reached / peak);
                }
            }
        }
    }
}

/// Operations a second, the best of some tries.
fn throughput(isa: Isa, precision: Precision, m: usize, k: usize, n: usize) -> f64 {
    let weights = PackedWeights::new(precision, n, k, |row, numbers| {
        numbers.iter_mut().enumerate().for_each(|(at, x)| *x = ((row * 31 + at * 17) % 97) as f32 / 97.0 - 0.5);
    });
    let x: Vec<f32> = (0..m * k).map(|at| (at % 89) as f32 / 89.0 - 0.5).collect();
    let (bias, mut out) = (vec![0.1; n], vec![0.0; m * n]);
    let mut best = f64::INFINITY;
    for _ in 0..6 {
        let started = Instant::now();
        matmul(isa, Rows::F32(&x), &weights, Epilogue::Bias(&bias), RowsMut::F32(&mut out));
        best = best.min(started.elapsed().as_secs_f64());
    }
    (2 * m * k * n) as f64 / best
}
