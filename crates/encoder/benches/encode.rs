//! Tokens per second of the built-in model: 32 sequences of 100 tokens, on one thread and on all; and on all with three
//! heads on the same pass.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use polylance_encoder::{
    Device, HeadKind, LoadOptions, ModelFiles, PackedBatch, SentenceEncoder, SharedHead, synthetic::Checkpoint,
};

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
    let heads = heads(&files);
    group.bench_function("three heads", |bencher| {
        bencher.iter(|| model.embed_with(black_box(&batch), &heads).expect("plain inputs"));
    });
    group.finish();
}

/// A classifier, a token classifier and a question answerer with made-up weights.
fn heads(files: &ModelFiles) -> Vec<SharedHead> {
    let kinds = [HeadKind::SequenceClassification, HeadKind::TokenClassification, HeadKind::QuestionAnswering];
    let labels: Vec<String> = (0..21).map(|label| format!("L{label}")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let load = |kind| {
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoint = Checkpoint::new(files.config().clone()).head(kind).labels(&labels).head_only();
        checkpoint.write(folder.path()).expect("it is written");
        std::fs::write(folder.path().join("tokenizer.json"), "{}").expect("it is written");
        let head = ModelFiles::find(folder.path().to_str().expect("a UTF-8 path")).expect("it is found");
        SharedHead::load(&head, files.config(), kind, &LoadOptions::default(), &Device::Cpu).expect("it loads")
    };
    kinds.map(load).into()
}

criterion_group!(benches, encode);
criterion_main!(benches);
