//! Tokens a second through the pool: texts of the built-in corpus, tokenized and encoded, by devices.

use arrow::array::AsArray;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::{StreamExt, executor::block_on, stream};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use polylance_backend::{Backend, TokenizeSpec};
use polylance_encoder::ModelFiles;
use polylance_schema::Chunking;
use polylance_worker::{DevicePool, PoolOptions};

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

fn encode(pool: &DevicePool, texts: &[String]) -> usize {
    let spec = TokenizeSpec { prefix: "passage: ".into(), chunking: Chunking::Truncate { max_tokens: 512 } };
    let chunks = block_on(pool.tokenize(texts.to_vec(), &spec)).expect("plain texts");
    let inputs: Vec<Vec<u32>> = chunks.into_iter().flatten().map(|chunk| chunk.input_ids).collect();
    let tokens = inputs.iter().map(Vec::len).sum();
    let windows: Vec<_> = inputs.chunks(32).map(|window| pool.encode(window.to_vec())).collect();
    block_on(stream::iter(windows).buffered(3).for_each(|vectors| async { drop(vectors.expect("plain inputs")) }));
    tokens
}

fn pool(criterion: &mut Criterion) {
    let files = ModelFiles::find("builtin:multilingual-e5-small").expect("the built-in model");
    let texts = texts();
    let mut group = criterion.benchmark_group("pool");
    group.sample_size(10);
    for devices in ["cpu", "auto"] {
        let options = PoolOptions { devices: vec![devices.to_owned()], ..PoolOptions::default() };
        let pool = DevicePool::open(&files, &options).expect("it loads");
        group.throughput(Throughput::Elements(encode(&pool, &texts) as u64));
        group.bench_function(devices, |bencher| bencher.iter(|| encode(&pool, &texts)));
    }
    group.finish();
}

criterion_group!(benches, pool);
criterion_main!(benches);
