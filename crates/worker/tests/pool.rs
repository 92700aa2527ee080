//! The pool with the built-in model: the contract of every backend, on one device and on several.

use std::time::Duration;

use futures::executor::block_on;
use polylance_backend::{Backend, BackendError, TokenizeSpec};
use polylance_encoder::{ModelError, ModelFiles};
use polylance_schema::{Chunking, Cut};
use polylance_testkit::{SCRIPTS, conformance, long_document};
use polylance_worker::{DevicePool, PoolError, PoolOptions};

fn pool(devices: &[&str]) -> DevicePool {
    let files = ModelFiles::find("builtin:multilingual-e5-small").unwrap();
    let devices = devices.iter().map(|&name| name.to_owned()).collect();
    DevicePool::open(&files, &PoolOptions { devices, batch_tokens: Some(512), ..PoolOptions::default() }).unwrap()
}

fn split(max_tokens: usize, overlap: usize, cut: Cut) -> TokenizeSpec {
    TokenizeSpec { prefix: "passage: ".into(), chunking: Chunking::Split { max_tokens, overlap, cut } }
}

#[test]
fn pool_passes_backend_conformance() {
    block_on(conformance::backend(&pool(&["cpu"])));
}

#[test]
fn one_device_and_several_give_the_same_vectors() {
    // `auto` is one device per core.
    let texts: Vec<String> = SCRIPTS.iter().map(|(_, text)| long_document(text, 300)).collect();
    let (one, several) = (pool(&["cpu"]), pool(&["auto"]));
    let chunks = block_on(one.tokenize(texts, &split(64, 0, Cut::Sentence))).unwrap();
    let inputs: Vec<Vec<u32>> = chunks.into_iter().flatten().map(|chunk| chunk.input_ids).collect();
    assert_eq!(block_on(one.encode(inputs.clone())).unwrap(), block_on(several.encode(inputs)).unwrap());
}

#[test]
fn streamed_layers_are_one_device_with_the_same_vectors() {
    let files = ModelFiles::find("builtin:multilingual-e5-small").unwrap();
    let open = |memory| DevicePool::open(&files, &PoolOptions { memory: Some(memory), ..PoolOptions::default() });
    let Err(PoolError::Model(ModelError::MemoryLimit { streamed: smallest, .. })) = open(1) else {
        panic!("one byte was enough");
    };
    let (streamed, resident) = (open(smallest).unwrap(), open(u64::MAX).unwrap());
    assert!(streamed.report().streaming.is_some() && resident.report().streaming.is_none());
    assert_eq!(streamed.info().devices, ["cpu"]);
    assert!(streamed.info().window_tokens >= 4096, "{}", streamed.info().window_tokens);
    let texts: Vec<String> = SCRIPTS.iter().map(|(_, text)| long_document(text, 300)).collect();
    let chunks = block_on(streamed.tokenize(texts, &split(64, 0, Cut::Sentence))).unwrap();
    let inputs: Vec<Vec<u32>> = chunks.into_iter().flatten().map(|chunk| chunk.input_ids).collect();
    assert_eq!(block_on(streamed.encode(inputs.clone())).unwrap(), block_on(resident.encode(inputs)).unwrap());
}

#[test]
fn input_ids_match_the_reference() {
    let spec = TokenizeSpec { prefix: "query: ".into(), chunking: Chunking::Truncate { max_tokens: 512 } };
    let chunks = block_on(pool(&["cpu"]).tokenize(vec!["Hello world, ça va? 你好".into()], &spec)).unwrap();
    assert_eq!(chunks[0][0].input_ids, [0, 41, 1294, 12, 35378, 8999, 4, 3244, 307, 32, 6, 124_084, 2]);
    assert_eq!(chunks[0][0].chars, 0..22);
}

#[test]
fn invalid_input_is_refused_before_it_is_queued() {
    let pool = pool(&["cpu"]);
    for ids in [vec![], vec![5; 513], vec![300_000]] {
        assert!(matches!(block_on(pool.encode(vec![ids])), Err(BackendError::Input(_))));
    }
    let prefix = TokenizeSpec { prefix: "long prefix ".repeat(40), ..split(16, 0, Cut::Word) };
    assert!(matches!(block_on(pool.tokenize(vec!["x".into()], &prefix)), Err(BackendError::Input(_))));
}

#[test]
fn stall_of_the_only_device_is_reported_with_its_name() {
    let files = ModelFiles::find("builtin:multilingual-e5-small").unwrap();
    let options =
        PoolOptions { devices: vec!["cpu".to_owned()], stall: Some(Duration::from_nanos(1)), ..PoolOptions::default() };
    let pool = DevicePool::open(&files, &options).unwrap();
    let error = block_on(pool.encode(vec![vec![0, 5, 2]; 4])).unwrap_err().to_string();
    assert!(error.starts_with("device cpu failed: made no progress for "), "{error}");
}
