//! The built-in model in every dtype of the CPU: its vectors are near to those in f32, and bitwise independent of their
//! neighbours in a batch.

use futures::executor::block_on;
use polylance_backend::{Backend, TokenizeSpec};
use polylance_encoder::ModelFiles;
use polylance_schema::{Chunking, Cut, Dtype};
use polylance_testkit::{SCRIPTS, long_document};
use polylance_worker::{DevicePool, PoolOptions};

fn pool(dtype: Dtype) -> DevicePool {
    let files = ModelFiles::find("builtin:multilingual-e5-small").unwrap();
    let devices = vec!["cpu:0".to_owned()];
    let options = PoolOptions { devices, dtype: Some(dtype), batch_tokens: Some(700), ..PoolOptions::default() };
    DevicePool::open(&files, &options).unwrap()
}

/// Texts in many scripts, from a few tokens to the model's limit.
fn inputs(pool: &DevicePool) -> Vec<Vec<u32>> {
    let texts = SCRIPTS.iter().enumerate().map(|(at, (_, text))| long_document(text, 20 + 45 * (at % 8)));
    let chunking = Chunking::Split { max_tokens: 512, overlap: 0, cut: Cut::Sentence };
    let spec = TokenizeSpec { prefix: "passage: ".into(), chunking };
    let chunks = block_on(pool.tokenize(texts.collect(), &spec)).unwrap();
    chunks.into_iter().flatten().map(|chunk| chunk.input_ids).collect()
}

/// The cosine of each pair of unit vectors.
fn cosines(a: &[f32], b: &[f32], dim: usize) -> Vec<f32> {
    let pairs = a.chunks_exact(dim).zip(b.chunks_exact(dim));
    pairs.map(|(a, b)| a.iter().zip(b).map(|(x, y)| x * y).sum()).collect()
}

#[test]
fn rounding_keeps_the_direction_of_vectors() {
    let exact = pool(Dtype::F32);
    let inputs = inputs(&exact);
    let expected = block_on(exact.encode(inputs.clone())).unwrap();
    for (dtype, min, mean) in [(Dtype::Bf16, 0.9999, 0.9999), (Dtype::Int8, 0.95, 0.995)] {
        let found = block_on(pool(dtype).encode(inputs.clone())).unwrap();
        let cosines = cosines(&found.values, &expected.values, expected.dim);
        let lowest = cosines.iter().copied().fold(1.0, f32::min);
        let average = cosines.iter().sum::<f32>() / cosines.len() as f32;
        assert!(lowest >= min && average >= mean, "{dtype}: min {lowest}, mean {average}");
    }
}

#[test]
fn item_alone_equals_item_in_batch_in_every_dtype() {
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::Int8] {
        let pool = pool(dtype);
        let inputs = inputs(&pool);
        let together = block_on(pool.encode(inputs.clone())).unwrap();
        for (input, expected) in inputs.iter().zip(together.values.chunks_exact(together.dim)).step_by(5) {
            let alone = block_on(pool.encode(vec![input.clone()])).unwrap();
            assert_eq!(alone.values, expected, "{dtype}, {} tokens", input.len());
        }
    }
}
