//! Layers from their files, on the CPU.

use polylance_encoder::{
    Device, Generation, HeadKind, HeadModel, LoadOptions, Logits, ModelConfig, ModelError, ModelKind, PackedBatch,
    Result, SentenceEncoder, SharedHead,
    synthetic::{Checkpoint, Format},
};
use polylance_schema::Dtype;
use rayon::ThreadPoolBuilder;

use super::{batch_of, files_of, sequences};

const KINDS: [ModelKind; 3] = [ModelKind::XlmRobertaXl, ModelKind::XlmRoberta, ModelKind::Bert];
/// Tokens that pass through a layer at once: a sequence or a few, and by default all.
const PART_TOKENS: [Option<usize>; 4] = [Some(1), Some(40), Some(150), None];

/// Six layers.
fn config(kind: ModelKind) -> ModelConfig {
    super::config(kind, 6)
}

fn rows() -> Vec<Vec<u32>> {
    sequences(30, 61)
}

fn batch() -> PackedBatch {
    batch_of(&rows())
}

/// The smallest limit: two layers and everything outside of the layers.
fn smallest_memory<T>(load: impl Fn(&LoadOptions) -> Result<T>, options: &LoadOptions) -> u64 {
    match load(&LoadOptions { memory: Some(1), ..options.clone() }) {
        Err(ModelError::MemoryLimit { limit: 1, streamed, resident, .. }) if streamed < resident => streamed,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("one byte was enough"),
    }
}

/// The model in memory, and the same streamed with each number of tokens in a part.
fn resident_and_streamed<T>(load: impl Fn(&LoadOptions) -> Result<T>, dtype: Dtype) -> (T, Vec<T>) {
    let options = LoadOptions { dtype: Some(dtype), memory: Some(u64::MAX), ..LoadOptions::default() };
    let memory = Some(smallest_memory(&load, &options));
    let streamed = |batch_tokens| load(&LoadOptions { memory, batch_tokens, ..options.clone() }).unwrap();
    (load(&options).unwrap(), PART_TOKENS.map(streamed).into())
}

#[test]
fn vectors_and_states_are_the_same_for_any_kind_dtype_and_window() {
    let several = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for kind in KINDS {
        for format in [Format::F32, Format::Bf16] {
            let (_folder, files) = files_of(&Checkpoint::new(config(kind)).format(format).shards(60_000));
            for dtype in [Dtype::F32, Dtype::Bf16, Dtype::Int8] {
                let load = |options: &LoadOptions| SentenceEncoder::load(&files, options, &Device::Cpu);
                let (resident, streamed) = resident_and_streamed(load, dtype);
                assert_eq!(resident.report().streaming, None);
                let numbers = |model: &SentenceEncoder| {
                    let states = model.hidden_states(&batch()).unwrap().flatten_all().unwrap();
                    (states.to_vec1::<f32>().unwrap(), model.embed(&batch()).unwrap())
                };
                let expected = numbers(&resident);
                assert_eq!(expected.1.len(), 30 * 48);
                for (model, part_tokens) in streamed.iter().zip(PART_TOKENS) {
                    assert!(model.report().streaming.is_some());
                    assert!(numbers(model) == expected, "{kind:?} {dtype} {part_tokens:?}");
                    assert!(several.install(|| numbers(model)) == expected, "{kind:?} {dtype} {part_tokens:?}");
                    // A second window passes through the same layers.
                    assert!(numbers(model) == expected, "{kind:?} {dtype} {part_tokens:?}");
                }
            }
        }
    }
}

#[test]
fn logits_are_the_same_for_any_head() {
    for head in [
        HeadKind::SequenceClassification,
        HeadKind::TokenClassification,
        HeadKind::QuestionAnswering,
        HeadKind::MultipleChoice,
    ] {
        let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRoberta)).head(head));
        let load = |options: &LoadOptions| HeadModel::load(&files, head, options, &Device::Cpu);
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let (resident, streamed) = resident_and_streamed(load, dtype);
            let expected = resident.forward(&batch()).unwrap();
            assert_eq!(expected.len(), 30);
            for (model, part_tokens) in streamed.iter().zip(PART_TOKENS) {
                assert!(model.forward(&batch()).unwrap() == expected, "{head} {dtype} {part_tokens:?}");
            }
        }
    }
}

#[test]
fn fused_heads_read_the_states_of_every_part() {
    let kinds = [HeadKind::SequenceClassification, HeadKind::TokenClassification];
    let backbone = config(ModelKind::Bert);
    let (_folder, files) = files_of(&Checkpoint::new(backbone.clone()));
    let folders = kinds.map(|kind| files_of(&Checkpoint::new(backbone.clone()).head(kind).head_only()));
    let heads: Vec<SharedHead> = kinds
        .iter()
        .zip(&folders)
        .map(|(kind, (_, head))| {
            SharedHead::load(head, &backbone, *kind, &LoadOptions::default(), &Device::Cpu).unwrap()
        })
        .collect();
    let load = |options: &LoadOptions| SentenceEncoder::load(&files, options, &Device::Cpu);
    let (resident, streamed) = resident_and_streamed(load, Dtype::F32);
    let expected = resident.embed_with(&batch(), &heads).unwrap();
    for model in &streamed {
        assert!(model.embed_with(&batch(), &heads).unwrap() == expected);
    }
}

fn largest_difference(a: &Logits, b: &Logits) -> f32 {
    assert_eq!(a.iter().map(Vec::len).collect::<Vec<_>>(), b.iter().map(Vec::len).collect::<Vec<_>>());
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn language_models_fill_masks_and_generate_from_streamed_layers() {
    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRoberta)).head(HeadKind::MaskedLm));
    let load = |options: &LoadOptions| HeadModel::load(&files, HeadKind::MaskedLm, options, &Device::Cpu);
    let (resident, streamed) = resident_and_streamed(load, Dtype::F32);
    let positions: Vec<Vec<usize>> =
        rows().iter().map(|row| if row.len() > 9 { vec![8, 2] } else { Vec::new() }).collect();
    let expected = resident.mask_logits(&batch(), &positions).unwrap();
    for model in &streamed {
        assert!(model.mask_logits(&batch(), &positions).unwrap() == expected);
    }

    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::Bert)).head(HeadKind::CausalLm));
    let load = |options: &LoadOptions| HeadModel::load(&files, HeadKind::CausalLm, options, &Device::Cpu);
    let (resident, streamed) = resident_and_streamed(load, Dtype::F32);
    let batch = PackedBatch::new(&rows()).unwrap();
    let generation = Generation { max_new_tokens: 12, ..Generation::default() };
    for model in &streamed {
        // The vocabulary is multiplied in blocks instead of at once.
        let apart = largest_difference(&model.forward(&batch).unwrap(), &resident.forward(&batch).unwrap());
        assert!(apart <= 2e-6, "{apart}");
        let ids = model.generate(&[5, 9, 7], &generation).unwrap();
        assert_eq!(ids, resident.generate(&[5, 9, 7], &generation).unwrap());
    }
}

#[test]
fn refused_sequence_has_its_number_in_the_batch() {
    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRoberta)));
    let load = |options: &LoadOptions| SentenceEncoder::load(&files, options, &Device::Cpu);
    let (resident, streamed) = resident_and_streamed(load, Dtype::F32);
    let mut rows = rows();
    rows[7][0] = 64;
    let batch = PackedBatch::new(&rows).unwrap();
    for model in std::iter::once(&resident).chain(&streamed) {
        let error = model.embed(&batch).unwrap_err();
        assert_eq!(error.to_string(), "sequence 7: id 64 is not below the vocabulary of 64");
    }
}

#[test]
fn limit_counts_the_layers_in_their_dtype_and_never_applies_to_a_model_that_fits() {
    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRobertaXl)));
    let load = |options: &LoadOptions| SentenceEncoder::load(&files, options, &Device::Cpu);
    let smallest = |dtype| smallest_memory(load, &LoadOptions { dtype: Some(dtype), ..LoadOptions::default() });
    assert!(smallest(Dtype::Bf16) < smallest(Dtype::F32));
    let streaming = |memory| {
        let options = LoadOptions { memory: Some(memory), ..LoadOptions::default() };
        load(&options).unwrap().report().streaming
    };
    let at_smallest = streaming(smallest(Dtype::F32)).unwrap();
    assert_eq!(at_smallest.state_tokens, 0);
    let with_states = streaming(smallest(Dtype::F32) + 100 * 48 * 4).unwrap();
    assert_eq!((with_states.layer_bytes, with_states.state_tokens), (at_smallest.layer_bytes, 100));
    assert_eq!(streaming(smallest(Dtype::F32) + 4 * at_smallest.layer_bytes), None);
}
