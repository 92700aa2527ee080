//! Tokens per second: the encoder alone, and texts of the built-in corpus through the pool, by devices and batch size.
//!
//! `cargo bench -p polylance-worker --bench pool`

use std::hint::black_box;

use arrow::array::AsArray;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::{StreamExt, executor::block_on, stream};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use polylance_backend::{Backend, TokenizeSpec};
use polylance_encoder::{Device, LoadOptions, ModelFiles, PackedBatch, SentenceEncoder};
use polylance_schema::Chunking;
use polylance_worker::{DevicePool, PoolOptions};

/// Windows in flight, as in the encode operator.
const IN_FLIGHT: usize = 3;

/// Every 80th article of the corpus: about 200 texts in as many languages.
fn texts() -> Vec<String> {
    let bytes = Bytes::from_static(polylance_builtin::udhr_parquet());
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a parquet file").build().expect("a reader");
    let batches = reader.map(|batch| batch.expect("a whole file"));
    let texts = batches.flat_map(|batch| {
        let column = batch.column_by_name("text").expect("the texts").as_string::<i32>();
        column.iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    });
    texts.step_by(80).collect()
}

fn tokenize(pool: &DevicePool, texts: &[String]) -> Vec<Vec<u32>> {
    let spec = TokenizeSpec { prefix: "passage: ".into(), chunking: Chunking::Truncate { max_tokens: 512 } };
    let chunks = block_on(pool.tokenize(texts.to_vec(), &spec)).expect("plain texts");
    chunks.into_iter().flatten().map(|chunk| chunk.input_ids).collect()
}

/// Windows of about `tokens` tokens.
fn windows(inputs: Vec<Vec<u32>>, tokens: usize) -> Vec<Vec<Vec<u32>>> {
    let mut windows = vec![Vec::new()];
    let mut filled = 0;
    for input in inputs {
        filled += input.len();
        windows.last_mut().expect("one window").push(input);
        if filled >= tokens {
            windows.push(Vec::new());
            filled = 0;
        }
    }
    windows
}

/// Texts in, vectors out.
fn through(pool: &DevicePool, texts: &[String]) {
    let windows = windows(tokenize(pool, texts), pool.info().window_tokens);
    let vectors = stream::iter(windows).map(|window| pool.encode(window)).buffered(IN_FLIGHT);
    block_on(vectors.for_each(|vectors| async { drop(black_box(vectors.expect("plain inputs"))) }));
}

fn pool(criterion: &mut Criterion) {
    let files = ModelFiles::find("builtin:multilingual-e5-small").expect("the built-in model");
    let texts = texts();
    let mut group = criterion.benchmark_group("pool");
    group.sample_size(10);
    let open = |devices: &[&str], batch_tokens| {
        let devices = devices.iter().map(|&device| device.to_owned()).collect();
        let options = PoolOptions { devices, batch_tokens, ..PoolOptions::default() };
        DevicePool::open(&files, &options).expect("it loads")
    };
    let inputs = tokenize(&open(&["cpu"], None), &texts);
    let tokens: usize = inputs.iter().map(Vec::len).sum();
    group.throughput(Throughput::Elements(tokens as u64));

    let encoder = SentenceEncoder::load(&files, &LoadOptions::default(), &Device::Cpu).expect("it loads");
    for size in [1024, 2048, 4096] {
        let windows = windows(inputs.clone(), size);
        let batches: Vec<_> = windows.iter().map(|rows| PackedBatch::new(rows).expect("rows with tokens")).collect();
        group.bench_function(format!("encoder alone, batches of {size}"), |bencher| {
            bencher.iter(|| batches.iter().for_each(|batch| drop(black_box(encoder.embed(batch).expect("tokens")))));
        });
    }
    for size in [512, 1024, 2048, 4096, 8192] {
        for devices in ["cpu", "auto"] {
            let pool = open(&[devices], Some(size));
            group.bench_function(format!("{devices}, batches of {size}"), |bencher| {
                bencher.iter(|| through(&pool, &texts));
            });
        }
    }
    let pool = open(&["cpu"], None);
    group.bench_function("tokenizing alone", |bencher| bencher.iter(|| drop(black_box(tokenize(&pool, &texts)))));
    group.finish();
}

criterion_group!(benches, pool);
criterion_main!(benches);
