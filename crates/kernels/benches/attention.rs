//! Attention of one layer over a packed batch of about a thousand tokens, in floating-point operations per second.
//!
//! ```text
//! cargo bench -p polylance-kernels --bench attention
//! ```
//!
//! A multiply-add of scores and values counts as two; softmax is not counted, so the share of the machine's peak shows
//! what it costs.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use polylance_kernels::{Isa, SelfAttention};

const BATCH_TOKENS: usize = 1024;

/// Heads and their sizes in the models with a hidden size of 384, 1024 and 2560.
const HEADS_AND_SIZES: [(usize, usize); 3] = [(12, 32), (16, 64), (32, 80)];

fn attention(criterion: &mut Criterion) {
    for (heads, head_size) in HEADS_AND_SIZES {
        for length in [12, 103, 512] {
            let mut group = criterion.benchmark_group(format!("attention/{head_size}/{length}"));
            let attention = SelfAttention::new(heads, head_size, 1.0 / (head_size as f32).sqrt());
            let sequences = BATCH_TOKENS / length;
            let borders: Vec<u32> = (0..=sequences).map(|i| (i * length) as u32).collect();
            let numbers = sequences * length * attention.hidden();
            let qkv: Vec<f32> = (0..3 * numbers).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 250.0).collect();
            let halves: Vec<bf16> = qkv.iter().map(|x| bf16::from_f32(*x)).collect();
            let (mut context, mut rounded) = (vec![0.0; numbers], vec![bf16::ZERO; numbers]);

            group.throughput(Throughput::Elements((4 * numbers * length) as u64));
            for isa in Isa::available() {
                group.bench_function(BenchmarkId::new("f32", isa), |bencher| {
                    bencher.iter(|| attention.forward_f32(isa, black_box(&qkv), &borders, &mut context));
                });
                group.bench_function(BenchmarkId::new("bf16", isa), |bencher| {
                    bencher.iter(|| attention.forward_bf16(isa, black_box(&halves), &borders, &mut rounded));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, attention);
criterion_main!(benches);
