//! Fused heads return the same annotations as heads in a pass of their own.

use std::path::Path;

use futures::executor::block_on;
use polylance_backend::{AnnotateInput, Annotated, Annotation, Annotator, Backend, EncodeInput, TokenizeSpec};
use polylance_encoder::{HeadKind, ModelConfig, ModelFiles, ModelKind, synthetic::Checkpoint};
use polylance_schema::{Aggregation, Chunking, Contract, Cut, HeadContract, HeadInputs, Prompts, Scores, TaskSpec};
use polylance_testkit::{SCRIPTS, long_document};
use polylance_worker::{DevicePool, FusedHead, PoolOptions, TaskPool, can_fuse, contract, head_contract};

const TOLERANCE: f32 = 1e-6;

fn model(folder: &Path, task: HeadKind, labels: &[&str]) -> ModelFiles {
    let config = ModelConfig {
        kind: ModelKind::XlmRoberta,
        vocab_size: 250_002,
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 24,
        max_position_embeddings: 130,
        type_vocab_size: 1,
        layer_norm_eps: 1e-5,
        pad_token_id: 1,
    };
    Checkpoint::new(config).head(task).labels(labels).head_scale(6.0).write(folder).unwrap();
    std::fs::write(folder.join("tokenizer.json"), polylance_builtin::tokenizer_json()).unwrap();
    ModelFiles::find(folder.to_str().unwrap()).unwrap()
}

fn same(found: &Annotated, expected: &Annotated) -> bool {
    let near = |a: f32, b: f32| (a - b).abs() <= TOLERANCE;
    match (found, expected) {
        (Ok(Annotation::Labels(found)), Ok(Annotation::Labels(expected))) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(a, b)| a.label == b.label && near(a.score, b.score))
        }
        (Ok(Annotation::Spans(found)), Ok(Annotation::Spans(expected))) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(a, b)| {
                    (&a.label, &a.chars, &a.text) == (&b.label, &b.chars, &b.text) && near(a.score, b.score)
                })
        }
        _ => false,
    }
}

#[test]
fn fused_head_returns_the_annotations_of_a_separate_one() {
    let folder = tempfile::tempdir().unwrap();
    let classes = model(&folder.path().join("classes"), HeadKind::SequenceClassification, &["a", "b", "c"]);
    let tags = model(&folder.path().join("tags"), HeadKind::TokenClassification, &["O", "B-PER", "I-PER", "B-LOC"]);
    let specs = [TaskSpec::Classify { scores: Scores::All }, TaskSpec::Ner { aggregation: Aggregation::First }];
    let options = PoolOptions::default();
    let heads = [(&classes, &specs[0]), (&tags, &specs[1])];
    let fused = heads.map(|(files, spec)| FusedHead { files: files.clone(), spec: spec.clone() });
    let pool = DevicePool::open_with_heads(&classes, &fused, &options).unwrap();
    assert_eq!(pool.heads(), specs);

    let texts: Vec<String> = SCRIPTS.iter().map(|(_, text)| long_document(text, 120)).collect();
    let chunking = Chunking::Split { max_tokens: 64, overlap: 8, cut: Cut::Sentence };
    let chunks = block_on(pool.tokenize(texts.clone(), &TokenizeSpec { prefix: String::new(), chunking })).unwrap();
    let inputs: Vec<EncodeInput> = texts
        .iter()
        .zip(chunks)
        .flat_map(|(text, chunks)| {
            let input = |chunk: polylance_backend::Chunk| EncodeInput {
                text: text[chunk.bytes.clone()].to_owned(),
                input_ids: chunk.input_ids,
            };
            chunks.into_iter().map(input).collect::<Vec<_>>()
        })
        .collect();
    let encoded = block_on(pool.encode_with_heads(inputs.clone())).unwrap();
    let vectors = block_on(pool.encode(inputs.iter().map(|input| input.input_ids.clone()).collect())).unwrap();
    assert_eq!(encoded.embeddings, vectors);
    for (at, (files, spec)) in heads.into_iter().enumerate() {
        let separate = TaskPool::open(files, spec.clone(), &options).unwrap();
        let input_of = |input: &EncodeInput| AnnotateInput { text: input.text.clone(), ..AnnotateInput::default() };
        let expected = block_on(separate.annotate(inputs.iter().map(input_of).collect())).unwrap();
        for ((found, expected), input) in encoded.annotations.iter().zip(&expected).zip(&inputs) {
            assert!(same(&found[at], expected), "{:?}: {:?}, expected {expected:?}", input.text, found[at]);
        }
    }

    // Tokens of another text: there is a vector, and the annotation is refused with the reason.
    let other = EncodeInput { input_ids: vec![0, 5, 2], text: "tea".to_owned() };
    let encoded = block_on(pool.encode_with_heads(vec![other])).unwrap();
    assert_eq!(encoded.embeddings.values.len(), 16);
    assert!(
        encoded.annotations[0]
            .iter()
            .all(|annotated| annotated.as_ref().is_err_and(|why| why.contains("other tokens")))
    );
}

#[test]
fn only_heads_with_the_same_tokens_and_encoder_can_be_fused() {
    let folder = tempfile::tempdir().unwrap();
    let classes = model(&folder.path().join("classes"), HeadKind::SequenceClassification, &["a", "b"]);
    let answers = model(&folder.path().join("answers"), HeadKind::QuestionAnswering, &[]);
    let (options, none) = (PoolOptions::default(), HeadInputs::default());
    let classify = TaskSpec::Classify { scores: Scores::Best };
    let of = |passage: &str, max_tokens: usize, dtype: polylance_schema::Dtype| {
        let prompts = Prompts { passage: passage.to_owned(), query: String::new() };
        let options = PoolOptions { dtype: Some(dtype), ..PoolOptions::default() };
        contract(&classes, &options, prompts, Chunking::Truncate { max_tokens }).unwrap()
    };
    let f32 = polylance_schema::Dtype::F32;
    let embedding = of("", 128, f32);
    let head = head_contract(&classes, classify.clone(), none.clone(), &options).unwrap();
    let fusable = |files: &ModelFiles, contract: &Contract, head: &HeadContract| {
        can_fuse(&classes, contract, files, head).unwrap()
    };
    assert!(fusable(&classes, &embedding, &head));
    assert!(!fusable(&classes, &of("passage: ", 128, f32), &head), "another prefix");
    assert!(!fusable(&classes, &of("", 129, f32), &head), "chunks that the head truncates");
    assert!(!fusable(&classes, &of("", 128, polylance_schema::Dtype::Bf16), &head), "another dtype");
    let qa =
        TaskSpec::Qa { top_k: 1, max_answer_tokens: 15, doc_stride: 128, null_answer: false, align_to_words: true };
    assert!(!fusable(&answers, &embedding, &head_contract(&answers, qa, none.clone(), &options).unwrap()), "pairs");

    let builtin = ModelFiles::find("builtin:multilingual-e5-small").unwrap();
    let other = contract(&builtin, &options, Prompts::default(), Chunking::Truncate { max_tokens: 128 }).unwrap();
    assert!(!can_fuse(&builtin, &other, &classes, &head).unwrap(), "another encoder");
}
