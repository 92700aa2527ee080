//! Outputs that are not finite: their own input is refused, and no other.

use std::{fs, path::Path};

use futures::executor::block_on;
use polylance_backend::{AnnotateInput, Annotator, Backend, BackendError, EncodeInput};
use polylance_encoder::{HeadKind, ModelConfig, ModelFiles, synthetic::Checkpoint};
use polylance_schema::{Aggregation, TaskSpec};
use polylance_worker::{DevicePool, FusedHead, PoolOptions, TaskPool};
use serde_json::Value;

/// The token of "milk", whose embedding is damaged.
const DAMAGED: u32 = 124_111;

/// Overwrites a row of the word embeddings with infinities.
fn damage(weights: &Path, row: u32) {
    let mut bytes = fs::read(weights).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let words =
        tensors.as_object().unwrap().iter().find(|(name, _)| name.ends_with("word_embeddings.weight")).unwrap().1;
    let width = words["shape"][1].as_u64().unwrap() as usize;
    let start = 8 + header + words["data_offsets"][0].as_u64().unwrap() as usize + row as usize * width * 4;
    bytes[start..start + width * 4]
        .chunks_mut(4)
        .for_each(|number| number.copy_from_slice(&f32::INFINITY.to_le_bytes()));
    fs::write(weights, bytes).unwrap();
}

fn tagger(folder: &Path) -> ModelFiles {
    let config = ModelConfig { vocab_size: 250_002, ..ModelConfig::tiny() };
    Checkpoint::new(config).head(HeadKind::TokenClassification).labels(&["O", "B-X"]).write(folder).unwrap();
    fs::write(folder.join("tokenizer.json"), polylance_builtin::tokenizer_json()).unwrap();
    damage(&folder.join("model.safetensors"), DAMAGED);
    ModelFiles::find(folder.to_str().unwrap()).unwrap()
}

#[test]
fn vector_that_is_not_finite_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = tagger(folder.path());
    let head = FusedHead { files: files.clone(), spec: TaskSpec::Ner { aggregation: Aggregation::Simple } };
    let pool = DevicePool::open_with_heads(&files, &[head], &PoolOptions::default()).unwrap();
    let (good, bad) = (vec![0, 5, 2], vec![0, DAMAGED, 2]);
    assert_eq!(block_on(pool.encode(vec![good.clone(), good.clone()])).unwrap().values.len(), 2 * pool.info().dim);
    let refused = |result: Result<usize, BackendError>| {
        assert!(matches!(&result, Err(BackendError::Input(why)) if why.contains("not finite")), "{result:?}");
    };
    refused(block_on(pool.encode(vec![good, bad.clone()])).map(|vectors| vectors.values.len()));
    let input = EncodeInput { input_ids: bad, text: "milk".to_owned() };
    refused(block_on(pool.encode_with_heads(vec![input])).map(|encoded| encoded.annotations.len()));
}

#[test]
fn annotation_that_is_not_finite_is_refused_and_the_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let files = tagger(folder.path());
    let pool =
        TaskPool::open(&files, TaskSpec::Ner { aggregation: Aggregation::Simple }, &PoolOptions::default()).unwrap();
    let input = |text: &str| AnnotateInput { text: text.to_owned(), ..AnnotateInput::default() };
    let annotations = block_on(pool.annotate(vec![input("tea"), input("tea and milk"), input("tea")])).unwrap();
    assert!(annotations[0].is_ok() && annotations[2].is_ok());
    assert!(annotations[1].as_ref().is_err_and(|why| why.contains("not finite")), "{annotations:?}");
}
