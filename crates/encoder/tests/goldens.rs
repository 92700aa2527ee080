//! The encoder against Hugging Face transformers: outputs made by `goldens/make.py`, weights by the same function.

use std::{fs, path::Path};

use polylance_encoder::{
    CuSeqlens, Device, Gpu, LoadOptions, ModelConfig, ModelFiles, PackedBatch, Pooling, SentenceEncoder, pool,
    synthetic::Checkpoint,
};
use polylance_fake_cuda::{Entry, FakeDriver, Session};
use polylance_schema::Dtype;
use safetensors::SafeTensors;
use serde_json::Value;

struct Goldens {
    bytes: Vec<u8>,
    cases: Value,
}

impl Goldens {
    fn read() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
        let json: Value = serde_json::from_slice(&fs::read(folder.join("goldens.json")).unwrap()).unwrap();
        assert!(json["made_with"]["transformers"].as_str().unwrap().starts_with("5.23."));
        assert!(json["made_with"]["torch"].as_str().unwrap().starts_with("2.15."));
        Self { bytes: fs::read(folder.join("goldens.safetensors")).unwrap(), cases: json["cases"].clone() }
    }

    fn values(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let bytes = tensors.tensor(name).unwrap().data().to_vec();
        bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    fn case(&self, name: &str) -> &Value {
        self.cases.as_array().unwrap().iter().find(|case| case["name"] == name).unwrap()
    }

    fn names(&self) -> Vec<&str> {
        self.cases.as_array().unwrap().iter().map(|case| case["name"].as_str().unwrap()).collect()
    }
}

fn config(case: &Value) -> ModelConfig {
    ModelConfig::from_json(case["config"].to_string().as_bytes(), Path::new("goldens.json")).unwrap()
}

/// The same ids as in `goldens/make.py`.
fn inputs(case: &Value) -> Vec<Vec<u32>> {
    let vocab = case["config"]["vocab_size"].as_u64().unwrap();
    let ids = |sequence: u64, length: u64| -> Vec<u32> {
        let mut ids: Vec<u32> =
            (0..length).map(|at| (5 + (sequence * 7919 + at * 104_729) % (vocab - 5)) as u32).collect();
        if length == 1 {
            ids[0] = 0;
        }
        ids
    };
    let lengths = case["lengths"].as_array().unwrap().iter().map(|length| length.as_u64().unwrap());
    lengths.enumerate().map(|(sequence, length)| ids(sequence as u64, length)).collect()
}

fn load(checkpoint: &Checkpoint, options: &LoadOptions) -> SentenceEncoder {
    load_on(checkpoint, options, &Device::Cpu)
}

fn load_on(checkpoint: &Checkpoint, options: &LoadOptions, device: &Device) -> SentenceEncoder {
    let folder = tempfile::tempdir().unwrap();
    checkpoint.write(folder.path()).unwrap();
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let files = ModelFiles::find(folder.path().to_str().unwrap()).unwrap();
    SentenceEncoder::load(&files, options, device).unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Holds one case against the reference: hidden states within 1e-4, pooled vectors at a cosine of 0.99999.
fn check(goldens: &Goldens, name: &str, device: &Device) {
    let case = goldens.case(name);
    let config = config(case);
    let width = config.hidden_size;
    let model = load_on(&Checkpoint::new(config), &LoadOptions::default(), device);
    let batch = PackedBatch::new(&inputs(case)).unwrap();
    let states = model.hidden_states(&batch).unwrap();

    let found = states.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let apart = largest_difference(&found, &goldens.values(&format!("{name}.hidden_states")));
    assert!(apart <= 1e-4, "{name}: hidden states differ by {apart}");

    let borders = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len()).unwrap();
    let pooled = pool(&states, &borders, Pooling::Mean).unwrap();
    let expected = goldens.values(&format!("{name}.mean"));
    for (found, expected) in pooled.chunks(width).zip(expected.chunks(width)) {
        let cosine = cosine(found, expected);
        assert!(cosine >= 0.99999, "{name}: cosine {cosine}");
    }
}

#[test]
fn hidden_states_and_vectors_are_those_of_transformers() {
    let goldens = Goldens::read();
    let names = goldens.names();
    let count = |kind: &str| names.iter().filter(|name| name.starts_with(kind)).count();
    assert!(count("xl-") >= 6 && count("xlmr-") >= 2 && count("bert-") >= 2);
    for name in names.iter().filter(|name| **name != "xl-true-geometry") {
        check(&goldens, name, &Device::Cpu);
    }
}

#[test]
fn padding_written_in_a_text_has_the_positions_of_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let json: Value = serde_json::from_slice(&fs::read(folder.join("padding.json")).unwrap()).unwrap();
    assert!(json["made_with"]["transformers"].as_str().unwrap().starts_with("5.24."));
    let goldens =
        Goldens { bytes: fs::read(folder.join("padding.safetensors")).unwrap(), cases: json["cases"].clone() };
    let inputs: Vec<Vec<u32>> = serde_json::from_value(json["inputs"].clone()).unwrap();
    let names = goldens.names();
    assert_eq!(names, ["xlm-roberta-padding", "xlm-roberta-xl-padding", "bert-padding"]);
    let (_session, gpu) = gpu("8.0");
    for name in names {
        let checkpoint = Checkpoint::new(config(goldens.case(name)));
        let batch = PackedBatch::new(&inputs).unwrap();
        let expected = goldens.values(&format!("{name}.hidden_states"));
        for device in [&Device::Cpu, &gpu] {
            let states = load_on(&checkpoint, &LoadOptions::default(), device).hidden_states(&batch).unwrap();
            let found = states.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let apart = largest_difference(&found, &expected);
            assert!(apart <= 1e-4, "{name} on {device:?}: hidden states differ by {apart}");
        }
    }
}

#[test]
fn two_layers_of_the_true_geometry_are_those_of_transformers() {
    check(&Goldens::read(), "xl-true-geometry", &Device::Cpu);
}

#[test]
fn an_item_alone_equals_the_item_in_a_batch() {
    let goldens = Goldens::read();
    for name in ["xl-mixed-lengths", "xlmr-odd-ffn", "bert-512-tokens"] {
        let case = goldens.case(name);
        let model = load(&Checkpoint::new(config(case)), &LoadOptions::default());
        let inputs = inputs(case);
        let together = model.embed(&PackedBatch::new(&inputs).unwrap()).unwrap();
        for (input, expected) in inputs.iter().zip(together.chunks(model.dim())) {
            let alone = model.embed(&PackedBatch::new(std::slice::from_ref(input)).unwrap()).unwrap();
            let apart = largest_difference(&alone, expected);
            assert!(apart <= 2e-6, "{name}: {} tokens differ by {apart}", input.len());
        }
    }
}

#[test]
fn a_pytorch_checkpoint_gives_the_vectors_of_the_safetensors_one() {
    let folder = tempfile::tempdir().unwrap();
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/pytorch_model.bin");
    fs::copy(bin, folder.path().join("pytorch_model.bin")).unwrap();
    fs::write(folder.path().join("config.json"), ModelConfig::tiny().to_json().to_string()).unwrap();
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let files = ModelFiles::find(folder.path().to_str().unwrap()).unwrap();
    let model = SentenceEncoder::load(&files, &LoadOptions::default(), &Device::Cpu).unwrap();
    let batch = PackedBatch::new(&[vec![1, 2, 3], vec![31; 20]]).unwrap();
    let expected = load(&Checkpoint::new(ModelConfig::tiny()), &LoadOptions::default()).embed(&batch).unwrap();
    assert_eq!(model.embed(&batch).unwrap(), expected);

    let whole = fs::read(folder.path().join("pytorch_model.bin")).unwrap();
    fs::write(folder.path().join("pytorch_model.bin"), &whole[..whole.len() / 2]).unwrap();
    let error = SentenceEncoder::load(&files, &LoadOptions::default(), &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("pytorch_model.bin: damaged"), "{error}");
}

#[test]
fn dimensions_are_cut_before_the_length_is_made_one() {
    let options = |dims| LoadOptions { dims: Some(dims), normalize: Some(true), ..LoadOptions::default() };
    let checkpoint = Checkpoint::new(ModelConfig::tiny());
    let batch = PackedBatch::new(&[vec![1, 2, 3]]).unwrap();
    let whole = load(&checkpoint, &options(16)).embed(&batch).unwrap();
    let cut = load(&checkpoint, &options(6)).embed(&batch).unwrap();
    let length = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((length(&whole) - 1.0).abs() < 1e-6 && (length(&cut) - 1.0).abs() < 1e-6);
    assert!(cosine(&whole[..6], &cut) > 0.999_999);
}

#[test]
fn inputs_that_no_model_takes_are_refused() {
    let model = load(&Checkpoint::new(ModelConfig::tiny()), &LoadOptions::default());
    let refuse = |ids: Vec<u32>, says: &str| {
        let error = model.embed(&PackedBatch::new(&[vec![1], ids]).unwrap()).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("sequence 1"), "{error}");
    };
    refuse(vec![1; 21], "21 tokens, the model takes at most 20");
    refuse(vec![32], "id 32 is not below the vocabulary of 32");
}

/// A GPU whose kernels run on the CPU.
fn gpu(compute: &str) -> (Session, Device) {
    let session = FakeDriver::session_with(&[("FAKE_CUDA_COMPUTE", compute)]);
    (session, Device::Cuda(Gpu::open(0).unwrap()))
}

/// In the fake driver a product of the true width takes minutes.
fn small(goldens: &Goldens) -> Vec<&str> {
    goldens.names().into_iter().filter(|name| *name != "xl-true-geometry").collect()
}

#[test]
fn a_gpu_gives_the_hidden_states_of_transformers_in_f32() {
    let (_session, device) = gpu("8.0");
    let goldens = Goldens::read();
    for name in small(&goldens) {
        check(&goldens, name, &device);
    }
}

/// Mean vectors on a GPU, against those of transformers in f32.
fn check_rounded(device: &Device, dtype: Dtype) {
    let goldens = Goldens::read();
    for name in small(&goldens) {
        let case = goldens.case(name);
        let options = LoadOptions { dtype: Some(dtype), pooling: Some(Pooling::Mean), ..LoadOptions::default() };
        let model = load_on(&Checkpoint::new(config(case)), &options, device);
        let found = model.embed(&PackedBatch::new(&inputs(case)).unwrap()).unwrap();
        let expected = goldens.values(&format!("{name}.mean"));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.chunks(model.dim()).zip(expected.chunks(model.dim())) {
            let cosine = cosine(found, expected);
            assert!(cosine >= 0.9999, "{name} in {dtype}: cosine {cosine}");
        }
    }
}

#[test]
fn a_gpu_gives_the_vectors_of_transformers_in_bf16() {
    check_rounded(&gpu("8.0").1, Dtype::Bf16);
}

#[test]
fn a_gpu_gives_the_vectors_of_transformers_in_f16() {
    check_rounded(&gpu("8.0").1, Dtype::F16);
}

#[test]
fn a_hopper_gpu_gives_the_vectors_of_transformers_in_bf16() {
    let (session, device) = gpu("9.0");
    check_rounded(&device, Dtype::Bf16);
    let launched = |name: &str| {
        session.take_log().iter().any(|entry| matches!(entry, Entry::Launch { name: found, .. } if found == name))
    };
    let Device::Cuda(gpu) = &device else { unreachable!("it is a GPU") };
    // Another test of this process may have configured the driver before.
    assert_eq!(launched("gemm_sm90_bf16"), gpu.info().compute == (9, 0));
}

#[test]
fn on_a_gpu_an_item_has_the_same_bits_in_any_batch() {
    let (_session, device) = gpu("8.0");
    let goldens = Goldens::read();
    for name in ["xl-mixed-lengths", "xlmr-odd-ffn", "bert-small"] {
        let case = goldens.case(name);
        let options = LoadOptions { dtype: Some(Dtype::Bf16), ..LoadOptions::default() };
        let model = load_on(&Checkpoint::new(config(case)), &options, &device);
        let inputs = inputs(case);
        let together = model.embed(&PackedBatch::new(&inputs).unwrap()).unwrap();
        let backwards: Vec<Vec<u32>> = inputs.iter().rev().cloned().collect();
        let backwards = model.embed(&PackedBatch::new(&backwards).unwrap()).unwrap();
        let reversed: Vec<f32> = backwards.chunks(model.dim()).rev().flatten().copied().collect();
        assert_eq!(together, reversed, "{name}");
        for (input, expected) in inputs.iter().zip(together.chunks(model.dim())) {
            let alone = model.embed(&PackedBatch::new(std::slice::from_ref(input)).unwrap()).unwrap();
            assert_eq!(alone, expected, "{name}: {} tokens", input.len());
        }
    }
}

#[test]
fn a_batch_on_a_gpu_is_one_upload_seven_launches_a_layer_and_one_download() {
    let (session, device) = gpu("8.0");
    let goldens = Goldens::read();
    let case = goldens.case("xl-4-heads");
    let options = LoadOptions { dtype: Some(Dtype::Bf16), ..LoadOptions::default() };
    let model = load_on(&Checkpoint::new(config(case)), &options, &device);
    let batch = PackedBatch::new(&inputs(case)).unwrap();
    // The first batch makes room for its outputs.
    let first = model.embed(&batch).unwrap();
    session.take_log();
    assert_eq!(model.embed(&batch).unwrap(), first);
    let log = session.take_log();
    let names: Vec<&str> = log
        .iter()
        .filter_map(|entry| match entry {
            Entry::Launch { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let layer = [
        "gemm_bf16",
        "attention_bf16_32",
        "gemm_bf16",
        "add_norm_bf16_4",
        "gemm_gelu_bf16",
        "gemm_bf16",
        "add_norm_bf16_4",
    ];
    let layers = config(case).num_hidden_layers;
    assert_eq!(names[1..=7 * layers], layer.repeat(layers));
    assert!(names[0].starts_with("embed_bf16") && names[7 * layers + 1..] == ["pool"], "{names:?}");
    let bytes = |wanted: fn(&Entry) -> Option<u64>| log.iter().filter_map(wanted).collect::<Vec<_>>();
    let uploads = bytes(|entry| if let Entry::Upload { bytes, .. } = entry { Some(*bytes) } else { None });
    let downloads = bytes(|entry| if let Entry::Download { bytes, .. } = entry { Some(*bytes) } else { None });
    assert!(uploads.len() == 1 && uploads[0] <= 512, "{uploads:?}");
    assert_eq!(downloads, [64 * 4]);
    let allocated = |entry: &Entry| matches!(entry, Entry::Alloc { .. } | Entry::AllocHost { .. });
    assert!(!log.iter().any(allocated), "{log:?}");
}

#[test]
fn batches_larger_than_a_gpu_takes_at_once_are_computed_in_parts() {
    let (_session, device) = gpu("8.0");
    let config = ModelConfig { max_position_embeddings: 200, ..ModelConfig::tiny() };
    let checkpoint = Checkpoint::new(config);
    let inputs: Vec<Vec<u32>> = (0..23).map(|row| vec![row + 1; 5 + 8 * row as usize]).collect();
    let batch = PackedBatch::new(&inputs).unwrap();
    let options = LoadOptions { batch_tokens: Some(256), ..LoadOptions::default() };
    let model = load_on(&checkpoint, &options, &device);
    assert_eq!(model.batch_tokens(), Some(256));
    assert!(batch.input_ids.len() > 2000);
    let expected = load(&checkpoint, &LoadOptions::default()).embed(&batch).unwrap();
    assert!(largest_difference(&model.embed(&batch).unwrap(), &expected) <= 1e-5);
    let error = model.embed(&PackedBatch::new(&[vec![1; 200], vec![2; 200], vec![32]]).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "sequence 2: id 32 is not below the vocabulary of 32");
}

#[test]
fn a_model_that_does_not_fit_names_what_is_needed_and_what_is_free() {
    let (_session, device) = gpu("8.0");
    let checkpoint = Checkpoint::new(ModelConfig::tiny());
    let folder = tempfile::tempdir().unwrap();
    checkpoint.write(folder.path()).unwrap();
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let files = ModelFiles::find(folder.path().to_str().unwrap()).unwrap();
    let options = LoadOptions { batch_tokens: Some(50_000_000), ..LoadOptions::default() };
    let error = SentenceEncoder::load(&files, &options, &device).unwrap_err().to_string();
    assert!(
        error.starts_with("cuda:0 (") && error.contains("has 4.0 GiB free; the model takes 0.0 GiB in f32"),
        "{error}"
    );
    assert!(error.contains("a batch of 50000128 tokens") && error.contains("set model.batch_tokens lower"), "{error}");
}
