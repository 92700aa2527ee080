//! Tokens a second of the built-in model: 32 sequences of 100 ids, on one thread and on all.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use polylance_encoder::{Device, LoadOptions, ModelFiles, PackedBatch, SentenceEncoder};

fn encode(criterion: &mut Criterion) {
    let files = ModelFiles::find("builtin:multilingual-e5-small").expect("the built-in model");
    let model = SentenceEncoder::load(&files, &LoadOptions::default(), &Device::Cpu).expect("it loads");
    let rows: Vec<Vec<u32>> =
        (0..32).map(|row| (0..100).map(|at| (row * 7919 + at * 104_729) % 250_000).collect()).collect();
    let batch = PackedBatch::new(&rows).expect("plain rows");
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(batch.input_ids.len() as u64)).sample_size(10);
    for threads in [1, all] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        group.bench_function(format!("{threads} threads"), |bencher| {
            bencher.iter(|| pool.install(|| model.embed(black_box(&batch)).expect("plain inputs")));
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
