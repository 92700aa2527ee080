//! Every head class against Hugging Face transformers: outputs made by `goldens/make_heads.py`, weights by the same
//! function.

use std::{fs, path::Path};

use polylance_encoder::{
    Device, FittedHead, FittedKind, Generation, Gpu, HeadKind, HeadModel, LoadOptions, Logits, ModelConfig, ModelError,
    ModelFiles, PackedBatch, Pooling, SentenceEncoder, SharedHead,
    synthetic::{Checkpoint, Format, Names, numbers},
};
use polylance_fake_cuda::{FakeDriver, Session};
use polylance_schema::Dtype;
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

struct Goldens {
    bytes: Vec<u8>,
    json: Value,
}

fn goldens_folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

impl Goldens {
    fn read() -> Self {
        let folder = goldens_folder();
        let json: Value = serde_json::from_slice(&fs::read(folder.join("heads.json")).unwrap()).unwrap();
        assert!(json["made_with"]["transformers"].as_str().unwrap().starts_with("5.23."));
        Self { bytes: fs::read(folder.join("heads.safetensors")).unwrap(), json }
    }

    fn cases(&self) -> Vec<Case<'_>> {
        self.json["cases"].as_array().unwrap().iter().map(|json| Case { json, goldens: self }).collect()
    }

    fn case(&self, name: &str) -> Case<'_> {
        self.cases().into_iter().find(|case| case.name() == name).unwrap()
    }
}

#[derive(Clone, Copy)]
struct Case<'a> {
    json: &'a Value,
    goldens: &'a Goldens,
}

impl Case<'_> {
    fn name(&self) -> &str {
        self.json["name"].as_str().unwrap()
    }

    fn kind(&self) -> HeadKind {
        serde_json::from_value(self.json["task"].clone()).unwrap()
    }

    fn config(&self) -> ModelConfig {
        ModelConfig::from_json(self.json["config"].to_string().as_bytes(), Path::new("heads.json")).unwrap()
    }

    fn checkpoint(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint::new(self.config()).head(self.kind()).key("eos_token_id", 2);
        if let Some(labels) = self.json["labels"].as_u64() {
            let labels: Vec<String> = (0..labels).map(|label| format!("L{label}")).collect();
            checkpoint = checkpoint.labels(&labels.iter().map(String::as_str).collect::<Vec<_>>());
        }
        if self.json["tied"] == false {
            checkpoint = checkpoint.untied();
        }
        checkpoint.names(if self.json["names"] == "bare" { Names::Bare } else { Names::Prefixed })
    }

    /// The same ids and types as in `goldens/make_heads.py`.
    fn batch(&self) -> PackedBatch {
        let vocab = self.config().vocab_size as u64;
        let lengths: Vec<u64> = serde_json::from_value(self.goldens.json["lengths"].clone()).unwrap();
        let id = |sequence: u64, at: u64| (5 + (sequence * 7919 + at * 104_729) % (vocab - 5)) as u32;
        let mut rows: Vec<Vec<u32>> = Vec::new();
        for (sequence, length) in lengths.iter().enumerate() {
            rows.push((0..*length).map(|at| if *length == 1 { 0 } else { id(sequence as u64, at) }).collect());
        }
        if self.json["types"] == false {
            return PackedBatch::new(&rows).unwrap();
        }
        let types = |row: &Vec<u32>| (0..row.len()).map(|at| u32::from(at > row.len() / 3)).collect();
        PackedBatch::with_token_types(&rows, &rows.iter().map(types).collect::<Vec<_>>()).unwrap()
    }

    /// One row-major vector a sequence.
    fn expected(&self) -> Logits {
        let tensors = SafeTensors::deserialize(&self.goldens.bytes).unwrap();
        let numbers = |sequence: usize| {
            let bytes = tensors.tensor(&format!("{}.{sequence}", self.name())).unwrap().data().to_vec();
            bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
        };
        (0..self.batch().sequences()).map(numbers).collect()
    }
}

fn files_of(checkpoint: &Checkpoint) -> (TempDir, ModelFiles) {
    let folder = tempfile::tempdir().unwrap();
    let files = checkpoint.write_model(folder.path()).unwrap();
    (folder, files)
}

fn load(files: &ModelFiles, head_kind: HeadKind) -> Result<HeadModel, ModelError> {
    HeadModel::load(files, head_kind, &LoadOptions::default(), &Device::Cpu)
}

/// A GPU whose kernels run on the CPU.
fn gpu() -> (Session, Device) {
    let session = FakeDriver::session();
    (session, Device::Cuda(Gpu::open(0).unwrap()))
}

fn model_on(checkpoint: &Checkpoint, head_kind: HeadKind, dtype: Dtype, device: &Device) -> HeadModel {
    let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
    HeadModel::load(&files_of(checkpoint).1, head_kind, &options, device).unwrap()
}

fn model(checkpoint: &Checkpoint, head_kind: HeadKind) -> HeadModel {
    load(&files_of(checkpoint).1, head_kind).unwrap()
}

fn refused(checkpoint: &Checkpoint, head_kind: HeadKind) -> ModelError {
    load(&files_of(checkpoint).1, head_kind).unwrap_err()
}

/// Positions whose logits a language model's golden keeps.
fn positions(batch: &PackedBatch) -> Vec<Vec<usize>> {
    let lengths = batch.cu_seqlens.windows(2).map(|pair| (pair[1] - pair[0]) as usize);
    lengths.map(|length| [length - 1, 0, length / 2][..length.min(3)].to_vec()).collect()
}

/// As the goldens have them: a language model's at some positions.
fn logits(model: &HeadModel, batch: &PackedBatch) -> Logits {
    if !matches!(model.head().kind(), HeadKind::MaskedLm | HeadKind::CausalLm) {
        return model.forward(batch).unwrap();
    }
    let positions = positions(batch);
    let mut rows = model.mask_logits(batch, &positions).unwrap().into_iter();
    positions.iter().map(|positions| rows.by_ref().take(positions.len()).flatten().collect()).collect()
}

fn apart(found: &Logits, expected: &Logits) -> f32 {
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), expected.iter().map(Vec::len).collect::<Vec<_>>());
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, |most, apart| if apart > most || apart.is_nan() { apart } else { most })
}

fn check(case: &Case<'_>, model: &HeadModel) {
    let apart = apart(&logits(model, &case.batch()), &case.expected());
    assert!(apart <= 1e-4, "{}: logits differ by {apart}", case.name());
}

#[test]
fn logits_are_those_of_transformers() {
    let goldens = Goldens::read();
    let made: Vec<Case<'_>> = goldens.cases().into_iter().filter(|case| case.json["saved"].is_null()).collect();
    for kind in ["xl-", "xlmr-", "bert-"] {
        for head_kind in HeadKind::ALL {
            assert!(
                made.iter().any(|case| case.name().starts_with(kind) && case.kind() == head_kind),
                "{kind}{head_kind}"
            );
        }
    }
    for case in made {
        let model = model(&case.checkpoint(), case.kind());
        check(&case, &model);
        assert!(model.report().missing.is_empty() && model.report().unused.is_empty(), "{:?}", model.report());
    }
}

#[test]
fn checkpoints_that_transformers_saved_are_read() {
    let goldens = Goldens::read();
    for name in ["xlmr-masked-lm-saved", "bert-sequence-classification-saved"] {
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(goldens_folder().join("saved").join(name).join(file), folder.path().join(file)).unwrap();
        }
        fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        let files = ModelFiles::find(folder.path().to_str().unwrap()).unwrap();
        let case = goldens.case(name);
        assert_eq!(files.head_config().kind(), Some(case.kind()));
        check(&case, &load(&files, case.kind()).unwrap());
    }
}

#[test]
fn generated_ids_are_those_of_transformers() {
    let goldens = Goldens::read();
    let decoders: Vec<Case<'_>> =
        goldens.cases().into_iter().filter(|case| case.kind() == HeadKind::CausalLm).collect();
    assert_eq!(decoders.len(), 6);
    for case in decoders {
        for text in case.json["generated"].as_array().unwrap() {
            let ids = |key: &str| -> Vec<u32> { serde_json::from_value(text[key].clone()).unwrap() };
            let (prompt, expected) = (ids("prompt"), ids("ids"));
            let options = Generation { max_new_tokens: 32, ..Generation::default() };
            let model = model(&case.checkpoint(), HeadKind::CausalLm);
            assert_eq!(model.generate(&prompt, &options).unwrap(), expected, "{} after {prompt:?}", case.name());

            let Some(&end) = expected.get(20) else { continue };
            let ending = self::model(&case.checkpoint().key("eos_token_id", vec![1, end]), HeadKind::CausalLm);
            let first = expected.iter().position(|id| [1, end].contains(id)).unwrap();
            assert_eq!(ending.generate(&prompt, &options).unwrap(), expected[..first], "{}", case.name());
        }
    }
}

#[test]
fn an_item_alone_has_the_logits_of_the_item_in_a_batch() {
    let goldens = Goldens::read();
    for name in ["xl-token-classification", "xlmr-sequence-classification", "bert-causal-lm"] {
        let case = goldens.case(name);
        let model = model(&case.checkpoint(), case.kind());
        let batch = PackedBatch { token_types: None, ..case.batch() };
        let together = logits(&model, &batch);
        for (range, expected) in batch.cu_seqlens.windows(2).zip(together) {
            let row = batch.input_ids[range[0] as usize..range[1] as usize].to_vec();
            let alone = logits(&model, &PackedBatch::new(&[row]).unwrap());
            assert!(apart(&alone, &vec![expected]) <= 2e-6, "{name}");
        }
    }
}

#[test]
fn half_precision_shards_change_little() {
    let goldens = Goldens::read();
    for name in ["xl-masked-lm", "xlmr-causal-lm-untied", "bert-sequence-classification"] {
        let case = goldens.case(name);
        let checkpoint = case.checkpoint().format(Format::Bf16).shards(30_000);
        let (_folder, files) = files_of(&checkpoint);
        let model = HeadModel::load(&files, case.kind(), &LoadOptions::default(), &Device::Cpu).unwrap();
        assert!(apart(&logits(&model, &case.batch()), &case.expected()) <= 0.1, "{name}");
    }
}

#[test]
fn a_tied_vocabulary_that_is_stored_again_with_other_numbers_is_its_own() {
    let goldens = Goldens::read();
    let case = goldens.case("xlmr-masked-lm-untied");
    let checkpoint = case.checkpoint().key("tie_word_embeddings", true);
    check(&case, &model(&checkpoint, HeadKind::MaskedLm));
}

#[test]
fn heads_on_one_pass_give_what_they_give_alone() {
    let goldens = Goldens::read();
    let options = LoadOptions::default();
    for kind in ["xl", "xlmr", "bert"] {
        let names = ["sequence-classification", "token-classification", "question-answering"];
        let cases: Vec<Case<'_>> = names.iter().map(|head_kind| goldens.case(&format!("{kind}-{head_kind}"))).collect();
        let (_folder, files) = files_of(&cases[0].checkpoint());
        let encoder = SentenceEncoder::load(&files, &options, &Device::Cpu).unwrap();
        let mut heads = Vec::new();
        for case in &cases {
            let (_folder, head) = files_of(&case.checkpoint());
            let head = SharedHead::load(&head, files.config(), case.kind(), &options, &Device::Cpu).unwrap();
            assert!(head.info().report().unused.is_empty(), "{:?}", head.info().report());
            heads.push(head);
        }
        let batch = cases[0].batch();
        let (vectors, logits) = encoder.embed_with(&batch, &heads).unwrap();
        assert_eq!(vectors, encoder.embed(&batch).unwrap());
        for (case, logits) in cases.iter().zip(&logits) {
            let apart = apart(logits, &case.expected());
            assert!(apart <= 1e-4, "{} shared: logits differ by {apart}", case.name());
        }
    }
}

#[test]
fn a_folder_with_a_head_alone_stands_on_another_model() {
    let goldens = Goldens::read();
    let options = LoadOptions::default();
    for name in ["xl-token-classification", "bert-sequence-classification"] {
        let case = goldens.case(name);
        let (_folder, backbone) = files_of(&Checkpoint::new(case.config()));
        let (_folder, head) = files_of(&case.checkpoint().head_only());
        let shared = SharedHead::load(&head, backbone.config(), case.kind(), &options, &Device::Cpu).unwrap();
        let encoder = SentenceEncoder::load(&backbone, &options, &Device::Cpu).unwrap();
        let (_, logits) = encoder.embed_with(&case.batch(), &[shared]).unwrap();
        assert!(apart(&logits[0], &case.expected()) <= 1e-4, "{name}");
        let error = load(&head, case.kind()).unwrap_err().to_string();
        assert!(error.contains("missing tensor \"embeddings.word_embeddings.weight\""), "{error}");
        assert!(head.backbone_hash().is_err());
    }
}

#[test]
fn a_fitted_head_is_one_linear_map_of_the_pooled_vector() {
    let config = ModelConfig::tiny();
    let width = config.hidden_size;
    let fitted = FittedHead {
        head: Some(FittedKind::PooledLinear),
        pooling: Pooling::Mean,
        normalize: true,
        prefix: "passage: ".to_owned(),
        backbone: None,
    };
    let head_kind = HeadKind::SequenceClassification;
    let checkpoint = Checkpoint::new(config.clone()).head(head_kind).labels(&["a", "b", "c"]).fitted(&fitted);
    let (_folder, files) = files_of(&checkpoint);
    assert_eq!(files.head_config().fitted(), Some(&fitted));
    let batch = PackedBatch::new(&[vec![1, 2, 3], vec![31; 20]]).unwrap();

    let options = LoadOptions { normalize: Some(true), ..LoadOptions::default() };
    let encoder = SentenceEncoder::load(&files, &options, &Device::Cpu).unwrap();
    let vectors = encoder.embed(&batch).unwrap();
    let weight = numbers("classifier.weight", &[3, width], 0, 3 * width);
    let bias = numbers("classifier.bias", &[3], 0, 3);
    let map = |vector: &[f32]| -> Vec<f32> {
        let row = |(row, bias): (&[f32], &f32)| bias + row.iter().zip(vector).map(|(w, x)| w * x).sum::<f32>();
        weight.chunks(width).zip(&bias).map(row).collect()
    };
    let expected: Logits = vectors.chunks(width).map(map).collect();

    let model = load(&files, head_kind).unwrap();
    assert_eq!(model.head().labels(), ["a", "b", "c"]);
    assert!(apart(&model.forward(&batch).unwrap(), &expected) < 1e-6);
    let shared = SharedHead::load(&files, &config, head_kind, &options, &Device::Cpu).unwrap();
    let (_, logits) = encoder.embed_with(&batch, &[shared]).unwrap();
    assert!(apart(&logits[0], &expected) < 1e-6);
}

#[test]
fn a_head_that_is_not_in_the_weights_is_named() {
    for (head_kind, tensor, others) in [
        (HeadKind::SequenceClassification, "pooler.dense.weight", 3),
        (HeadKind::TokenClassification, "classifier.weight", 1),
        (HeadKind::QuestionAnswering, "qa_outputs.weight", 1),
        (HeadKind::MaskedLm, "cls.predictions.transform.dense.weight", 4),
        (HeadKind::MultipleChoice, "pooler.dense.weight", 3),
    ] {
        let error = refused(&Checkpoint::new(ModelConfig::tiny()), head_kind).to_string();
        let expected = format!("missing tensor {tensor:?} ({others} others are missing too)");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_head_for_another_number_of_labels_or_another_width_is_refused() {
    let head_kind = HeadKind::TokenClassification;
    let ids = serde_json::json!({"0": "O", "1": "B-PER", "2": "I-PER"});
    let error =
        refused(&Checkpoint::new(ModelConfig::tiny()).head(head_kind).key("id2label", ids), head_kind).to_string();
    assert!(error.contains("tensor \"classifier.weight\" has shape [2, 16], expected [3, 16]"), "{error}");

    let wide = ModelConfig { hidden_size: 24, ..ModelConfig::tiny() };
    let (_folder, files) = files_of(&Checkpoint::new(ModelConfig::tiny()).head(head_kind));
    let error = SharedHead::load(&files, &wide, head_kind, &LoadOptions::default(), &Device::Cpu).unwrap_err();
    assert!(matches!(error, ModelError::WrongShape { .. }), "{error}");

    let gap = serde_json::json!({"0": "O", "2": "I-PER"});
    let error =
        refused(&Checkpoint::new(ModelConfig::tiny()).head(head_kind).key("id2label", gap), head_kind).to_string();
    assert!(error.contains("config.json: labels missing from id2label: id 1 has none"), "{error}");
}

#[test]
fn a_decoder_generates_and_does_nothing_else() {
    let decoder = Checkpoint::new(ModelConfig::tiny()).head(HeadKind::CausalLm);
    let (_folder, files) = files_of(&decoder);
    let error = SentenceEncoder::load(&files, &LoadOptions::default(), &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("is_decoder \"true\"") && error.contains("for embedding"), "{error}");
    assert!(refused(&decoder, HeadKind::MaskedLm).to_string().contains("for masked language modeling"));
    let encoder = Checkpoint::new(ModelConfig::tiny()).head(HeadKind::MaskedLm);
    assert!(refused(&encoder, HeadKind::CausalLm).to_string().contains("is_decoder \"false\""));

    let masked = model(&encoder, HeadKind::MaskedLm);
    let error = masked.generate(&[1], &Generation::default()).unwrap_err().to_string();
    assert_eq!(error, "the model was loaded for masked language modeling, not to generate");
}

#[test]
fn positions_and_types_that_are_not_there_are_refused() {
    let masked = model(&Checkpoint::new(ModelConfig::tiny()).head(HeadKind::MaskedLm), HeadKind::MaskedLm);
    let batch = PackedBatch::new(&[vec![1, 2], vec![3]]).unwrap();
    let error = masked.mask_logits(&batch, &[vec![1], vec![1]]).unwrap_err().to_string();
    assert_eq!(error, "sequence 1: position 1 is outside its 1 tokens");
    assert!(masked.mask_logits(&batch, &[vec![1]]).is_err());
    assert!(masked.mask_logits(&batch, &[vec![], vec![]]).unwrap().is_empty());
    assert!(masked.forward(&PackedBatch::new(&[]).unwrap()).unwrap().is_empty());

    let typed = PackedBatch::with_token_types(&[vec![1], vec![1, 2]], &[vec![0], vec![1, 2]]).unwrap();
    let error = masked.forward(&typed).unwrap_err().to_string();
    assert_eq!(error, "sequence 1: token type 2, the model has 2");
    let classifier = model(
        &Checkpoint::new(ModelConfig::tiny()).head(HeadKind::SequenceClassification),
        HeadKind::SequenceClassification,
    );
    let error = classifier.mask_logits(&batch, &[vec![0], vec![0]]).unwrap_err().to_string();
    assert_eq!(error, "the head of the model has no vocabulary");
}

#[test]
fn a_model_with_one_token_type_has_nothing_to_tell_apart() {
    let goldens = Goldens::read();
    let case = goldens.case("xlmr-sequence-classification");
    let model = model(&case.checkpoint(), case.kind());
    let batch = case.batch();
    let typed = PackedBatch { token_types: Some(vec![1; batch.input_ids.len()]), ..batch.clone() };
    assert_eq!(model.forward(&typed).unwrap(), model.forward(&batch).unwrap());
}

#[test]
fn on_a_gpu_logits_are_those_of_transformers() {
    let (_session, device) = gpu();
    let goldens = Goldens::read();
    let mut kinds = Vec::new();
    for case in goldens.cases().into_iter().filter(|case| case.json["saved"].is_null()) {
        check(&case, &model_on(&case.checkpoint(), case.kind(), Dtype::F32, &device));
        let rounded = model_on(&case.checkpoint(), case.kind(), Dtype::Bf16, &device);
        let apart = apart(&logits(&rounded, &case.batch()), &case.expected());
        assert!(apart <= 0.1, "{} in bf16: logits differ by {apart}", case.name());
        kinds.push(case.kind());
    }
    assert!(HeadKind::ALL.iter().all(|head_kind| kinds.contains(head_kind)));
}

#[test]
fn on_a_gpu_generated_ids_are_those_of_transformers() {
    let (_session, device) = gpu();
    let goldens = Goldens::read();
    let decoders: Vec<Case<'_>> =
        goldens.cases().into_iter().filter(|case| case.kind() == HeadKind::CausalLm).collect();
    assert_eq!(decoders.len(), 6);
    for case in decoders {
        let model = model_on(&case.checkpoint(), HeadKind::CausalLm, Dtype::F32, &device);
        for text in case.json["generated"].as_array().unwrap() {
            let ids = |key: &str| -> Vec<u32> { serde_json::from_value(text[key].clone()).unwrap() };
            let (prompt, expected) = (ids("prompt"), ids("ids"));
            let options = Generation { max_new_tokens: 32, ..Generation::default() };
            assert_eq!(model.generate(&prompt, &options).unwrap(), expected, "{} after {prompt:?}", case.name());
        }
    }
}

#[test]
fn on_a_gpu_heads_on_one_pass_give_what_they_give_alone() {
    let (_session, device) = gpu();
    let goldens = Goldens::read();
    let options = LoadOptions::default();
    for kind in ["xl", "xlmr", "bert"] {
        let names = ["sequence-classification", "token-classification", "question-answering"];
        let cases: Vec<Case<'_>> = names.iter().map(|head_kind| goldens.case(&format!("{kind}-{head_kind}"))).collect();
        let (_folder, files) = files_of(&cases[0].checkpoint());
        let encoder = SentenceEncoder::load(&files, &options, &device).unwrap();
        let load = |case: &Case<'_>| {
            SharedHead::load(&files_of(&case.checkpoint()).1, files.config(), case.kind(), &options, &device).unwrap()
        };
        let heads: Vec<SharedHead> = cases.iter().map(load).collect();
        let batch = cases[0].batch();
        let (vectors, logits) = encoder.embed_with(&batch, &heads).unwrap();
        assert_eq!(vectors, encoder.embed(&batch).unwrap());
        for (case, logits) in cases.iter().zip(&logits) {
            let apart = apart(logits, &case.expected());
            assert!(apart <= 1e-4, "{} shared: logits differ by {apart}", case.name());
        }
        let error =
            SentenceEncoder::load(&files, &options, &Device::Cpu).unwrap().embed_with(&batch, &heads).unwrap_err();
        assert_eq!(error.to_string(), "the head is on a GPU, the states are on the CPU");
    }
}

#[test]
fn on_a_gpu_a_fitted_head_is_that_of_the_cpu() {
    let (_session, device) = gpu();
    for (pooling, normalize) in [(Pooling::Mean, true), (Pooling::Max, false)] {
        let fitted = FittedHead {
            head: Some(FittedKind::PooledLinear),
            pooling,
            normalize,
            prefix: String::new(),
            backbone: None,
        };
        let head_kind = HeadKind::SequenceClassification;
        let checkpoint = Checkpoint::new(ModelConfig::tiny()).head(head_kind).labels(&["a", "b", "c"]).fitted(&fitted);
        let batch = PackedBatch::new(&[vec![1, 2, 3], vec![31; 20]]).unwrap();
        let expected = model(&checkpoint, head_kind).forward(&batch).unwrap();
        let found = model_on(&checkpoint, head_kind, Dtype::F32, &device).forward(&batch).unwrap();
        assert!(apart(&found, &expected) < 1e-5);
    }
}
