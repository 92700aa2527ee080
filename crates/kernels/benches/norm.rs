//! Layer norm of a thousand rows, as they are and rounded, in numbers per second.
//!
//! ```text
//! cargo bench -p polylance-kernels --bench norm
//! ```

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use polylance_kernels::{Isa, LayerNorm, NormOutput};

const ROWS: usize = 1024;

fn norms(criterion: &mut Criterion) {
    for width in [384, 1024, 2560] {
        let x: Vec<f32> = (0..ROWS * width).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 250.0).collect();
        let (weight, bias) = (vec![1.1; width], vec![0.1; width]);
        let norm = LayerNorm::new(&weight, &bias, 1e-5);
        let (mut out, mut rounded) = (vec![0.0; x.len()], vec![bf16::ZERO; x.len()]);
        let mut group = criterion.benchmark_group(format!("norm/{width}"));
        group.throughput(Throughput::Elements(x.len() as u64));
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::new("f32", isa), |bencher| {
                bencher.iter(|| norm.forward(isa, black_box(&x), NormOutput::F32(&mut out)));
            });
            group.bench_function(BenchmarkId::new("both", isa), |bencher| {
                bencher.iter(|| norm.forward(isa, black_box(&x), NormOutput::Both(&mut out, &mut rounded)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, norms);
criterion_main!(benches);
