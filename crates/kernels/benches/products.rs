//! Matrix products of one layer with their epilogues, in operations per second: two for each multiply-add.
//!
//! ```text
//! cargo bench -p polylance-kernels --bench products
//! ```
//!
//! The weights are the same every time, so those of the small model stay in the cache. The example `throughput` uses
//! different weights in every call, as a model does, and prints shares of the peak, which is measured first here.
#![expect(clippy::print_stderr, reason = "criterion has no line for a peak")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use polylance_kernels::{Buffer, Epilogue, Isa, PackedWeights, Precision, Rows, RowsMut, matmul, peak};

/// Row sizes before and after the wide maps of the models with a hidden size of 384 and 2560.
const MAPS: [(usize, usize); 4] = [(384, 1536), (1536, 384), (2560, 10240), (10240, 2560)];
/// One text, a few, and a batch.
const ROWS: [usize; 3] = [12, 128, 512];

fn products(criterion: &mut Criterion) {
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        for isa in Isa::available() {
            eprintln!("{precision:?} {isa}: peak {:.0} G/s", peak(isa, precision) / 1e9);
        }
        for (k, n) in MAPS {
            let weights = PackedWeights::new(precision, n, k, |row, numbers| {
                let number = |at: usize| ((row * 31 + at * 17) % 97) as f32 / 97.0 - 0.5;
                numbers.iter_mut().enumerate().for_each(|(at, x)| *x = number(at));
            });
            let bias = vec![0.1; n];
            let epilogue = if k < n { Epilogue::BiasGelu(&bias) } else { Epilogue::BiasAdd(&bias) };
            let mut group = criterion.benchmark_group(format!("product/{precision:?}/{k}x{n}"));
            group.sample_size(10);
            for rows in ROWS {
                let (mut x, mut out) = (Buffer::default(), Buffer::default());
                let (padded, results) = (rows.next_multiple_of(32) * k, rows * n);
                group.throughput(Throughput::Elements((2 * rows * k * n) as u64));
                for isa in Isa::available() {
                    group.bench_function(BenchmarkId::new(isa.to_string(), rows), |bencher| {
                        bencher.iter(|| {
                            // As in the encoder: a narrow map writes to the residual stream, in f32.
                            let f32_in = precision == Precision::F32 || (precision == Precision::Int8 && k < n);
                            let f32_out = precision == Precision::F32 || k > n;
                            let x = if f32_in { Rows::F32(x.f32(padded)) } else { Rows::Bf16(x.bf16(padded)) };
                            let out =
                                if f32_out { RowsMut::F32(out.f32(results)) } else { RowsMut::Bf16(out.bf16(results)) };
                            matmul(isa, x, black_box(&weights), epilogue, out);
                        });
                    });
                }
            }
            group.finish();
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
