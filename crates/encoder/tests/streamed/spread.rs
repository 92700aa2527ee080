//! Layers on several GPUs, with copies that run as late and as early as their order allows.

use std::sync::Arc;

use polylance_cuda::DeviceBuffer;
use polylance_encoder::{
    Device, Generation, Gpu, HeadKind, HeadModel, ModelConfig, ModelError, ModelFiles, ModelKind, PackedBatch,
    SentenceEncoder, SharedHead,
    synthetic::{Checkpoint, Format},
};
use polylance_fake_cuda::{Copies, Session};
use polylance_schema::Dtype;

use super::{
    config, driver, files_of,
    gpu::{RESERVED_BYTES, assert_no_misuse, batch, expect_same_in_lanes, needed, options, rows},
};

/// The driver, and the first GPUs.
fn gpus(count: u32) -> (Session, Vec<Arc<Gpu>>) {
    let session = driver();
    (session, (0..count).map(|ordinal| Gpu::open(ordinal).unwrap()).collect())
}

/// The first GPU alone, two and three of them together.
fn devices(gpus: &[Arc<Gpu>]) -> (Device, [Device; 2]) {
    (Device::Cuda(Arc::clone(&gpus[0])), [2, 3].map(|count| Device::CudaStages(Arc::from(&gpus[..count]))))
}

/// The outputs of a model on one GPU, after those on several were found to be the same.
#[track_caller]
fn expect_same<T: PartialEq>(gpus: &[Arc<Gpu>], outputs: impl Fn(&Device) -> T) -> T {
    let (one, several) = devices(gpus);
    let expected = outputs(&one);
    for device in &several {
        assert!(outputs(device) == expected, "{device}");
    }
    expected
}

#[test]
fn vectors_and_states_are_the_same_for_any_kind_dtype_and_split() {
    let cases = [
        (ModelKind::XlmRobertaXl, 5, Dtype::F32, Format::F32),
        (ModelKind::XlmRobertaXl, 5, Dtype::Bf16, Format::Bf16),
        (ModelKind::XlmRobertaXl, 3, Dtype::F16, Format::F32),
        (ModelKind::XlmRoberta, 5, Dtype::F16, Format::F32),
        (ModelKind::Bert, 4, Dtype::Bf16, Format::F32),
    ];
    for (kind, layers, dtype, format) in cases {
        let (_folder, files) = files_of(&Checkpoint::new(config(kind, layers)).format(format));
        for copies in [Copies::Late, Copies::Early] {
            let (session, gpus) = gpus(3);
            session.set_copies(copies);
            let (one, several) = devices(&gpus);
            let load = |device| SentenceEncoder::load(&files, &options(dtype), device).unwrap();
            let numbers = |model: &SentenceEncoder| {
                let states = model.hidden_states(&batch()).unwrap().flatten_all().unwrap();
                (states.to_vec1::<f32>().unwrap(), model.embed(&batch()).unwrap())
            };
            let expected = numbers(&load(&one));
            assert!(expected.1.len() == 20 * 48 && expected.0.iter().all(|number| number.is_finite()));
            for device in &several {
                let spread = load(device);
                assert_eq!((spread.report().streaming, spread.batch_tokens()), (None, Some(256)));
                for round in 0..2 {
                    assert!(numbers(&spread) == expected, "{kind:?} {dtype} {copies:?} {device}, round {round}");
                }
            }
            assert_no_misuse(&session);
        }
    }
}

#[test]
fn each_gpu_has_only_its_layers_and_a_batch() {
    let (session, gpus) = gpus(3);
    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRobertaXl, 5)));
    let (one, several) = devices(&gpus);
    let in_use = || [0, 1, 2].map(|gpu| session.memory_in_use(gpu));
    let memory_with = |device: &Device| {
        let before = in_use();
        let model = SentenceEncoder::load(&files, &options(Dtype::Bf16), device).unwrap();
        let after = in_use();
        drop(model);
        [0, 1, 2].map(|gpu| after[gpu] - before[gpu])
    };
    let [whole, ..] = memory_with(&one);
    // Layers 0-1 and 2-4; layers 0, 1-2 and 3-4.
    let [of_two, of_three] = several.each_ref().map(memory_with);
    let of_batch = of_two.iter().sum::<u64>() - whole;
    assert_eq!(of_three.iter().sum::<u64>() - whole, 2 * of_batch);
    let layer = of_two[0] - of_three[0];
    assert!(layer > 12 * 48 * 48 * 2 && of_two[1] - of_three[2] == layer);
    assert_eq!(of_three[1], 2 * layer + of_batch, "nothing but layers is on the GPU in the middle");
    drop((one, several, gpus));
    assert_eq!((in_use(), [0, 1, 2].map(|gpu| session.pinned_in_use(gpu))), ([0; 3], [0; 3]));
}

#[test]
fn page_locked_memory_for_states_is_allocated_at_load() {
    let (session, gpus) = gpus(3);
    let (one, [two, three]) = devices(&gpus);
    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::Bert, 5)));
    let pinned = || [0, 1, 2].map(|gpu| session.pinned_in_use(gpu));
    let loaded_and_used = |device| {
        let encoder = SentenceEncoder::load(&files, &options(Dtype::Bf16), device).unwrap();
        let loaded = pinned();
        encoder.embed(&batch()).unwrap();
        (loaded, pinned())
    };
    let ([block, ..], _) = loaded_and_used(&one);
    // Two batches of 256 tokens, sent by one GPU and received by the next.
    let states = 2 * 256 * 48 * 4;
    let (loaded, used) = loaded_and_used(&two);
    assert_eq!((loaded, used[0]), ([block + states, block + states, 0], loaded[0]));
    let (loaded, used) = loaded_and_used(&three);
    assert_eq!(loaded, [block + states, block + 2 * states, block + states]);
    assert_eq!(used[..2], loaded[..2], "only outputs grow");
}

#[test]
fn logits_are_the_same_for_any_head() {
    let (session, gpus) = gpus(3);
    for head in [
        HeadKind::SequenceClassification,
        HeadKind::TokenClassification,
        HeadKind::QuestionAnswering,
        HeadKind::MultipleChoice,
    ] {
        let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRoberta, 5)).head(head));
        let logits = expect_same(&gpus, |device| {
            HeadModel::load(&files, head, &options(Dtype::Bf16), device).unwrap().forward(&batch()).unwrap()
        });
        assert_eq!(logits.len(), 20, "{head}");
    }
    assert_no_misuse(&session);
}

#[test]
fn fused_heads_read_the_states_on_the_last_gpu() {
    let (session, gpus) = gpus(3);
    let backbone = config(ModelKind::Bert, 5);
    let (_folder, files) = files_of(&Checkpoint::new(backbone.clone()));
    let kinds = [HeadKind::SequenceClassification, HeadKind::TokenClassification];
    let folders = kinds.map(|kind| files_of(&Checkpoint::new(backbone.clone()).head(kind).head_only()));
    let _ = expect_same(&gpus, |device| {
        let encoder = SentenceEncoder::load(&files, &options(Dtype::F32), device).unwrap();
        let on = encoder.head_device();
        let heads: Vec<SharedHead> = kinds
            .iter()
            .zip(&folders)
            .map(|(kind, (_, head))| SharedHead::load(head, &backbone, *kind, &options(Dtype::F32), &on).unwrap())
            .collect();
        encoder.embed_with(&batch(), &heads).unwrap()
    });
    assert_no_misuse(&session);
}

#[test]
fn language_models_fill_masks_and_generate_over_several_gpus() {
    let (session, gpus) = gpus(3);
    let positions: Vec<Vec<usize>> =
        rows().iter().map(|row| if row.len() > 9 { vec![8, 2] } else { Vec::new() }).collect();
    // The word embeddings are tied, and so on the first GPU and on the last one.
    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRoberta, 5)).head(HeadKind::MaskedLm));
    let _ = expect_same(&gpus, |device| {
        let model = HeadModel::load(&files, HeadKind::MaskedLm, &options(Dtype::Bf16), device).unwrap();
        model.mask_logits(&batch(), &positions).unwrap()
    });
    for checkpoint in [
        Checkpoint::new(config(ModelKind::Bert, 5)).head(HeadKind::CausalLm).untied(),
        Checkpoint::new(config(ModelKind::XlmRobertaXl, 3)).head(HeadKind::CausalLm),
    ] {
        let (_folder, files) = files_of(&checkpoint);
        let generation = Generation { max_new_tokens: 9, ..Generation::default() };
        let _ = expect_same(&gpus, |device| {
            let model = HeadModel::load(&files, HeadKind::CausalLm, &options(Dtype::F32), device).unwrap();
            (model.generate(&[5, 9, 7], &generation).unwrap(), model.forward(&batch()).unwrap())
        });
    }
    assert_no_misuse(&session);
}

#[test]
fn more_lanes_than_gpus_pass_through_all_of_them() {
    for copies in [Copies::Late, Copies::Early] {
        let (session, gpus) = gpus(3);
        session.set_copies(copies);
        let (one, several) = devices(&gpus);
        let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRobertaXl, 5)));
        let load = |device| SentenceEncoder::load(&files, &options(Dtype::Bf16), device).unwrap();
        let whole = load(&one);
        for device in &several {
            expect_same_in_lanes(4, &load(device), &whole, copies);
        }
        assert_no_misuse(&session);
    }
}

#[test]
fn failed_batches_do_not_change_later_ones_and_only_the_lost_gpu_is_reset() {
    let (session, gpus) = gpus(2);
    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRobertaXl, 5)));
    let load = |gpus: &[Arc<Gpu>]| {
        SentenceEncoder::load(&files, &options(Dtype::Bf16), &Device::CudaStages(gpus.into())).unwrap()
    };
    let spread = load(&gpus);
    let batch = PackedBatch::new(&rows()[..5]).unwrap();
    let expected = spread.embed(&batch).unwrap();
    // The first GPU launches 15 kernels. Batch, states, and both results.
    let failures = [("cuLaunchKernel", 2), ("cuLaunchKernel", 16), ("cuLaunchKernel", 30)];
    let copies =
        [("cuMemcpyHtoDAsync", 1), ("cuMemcpyDtoHAsync", 1), ("cuMemcpyHtoDAsync", 3), ("cuMemcpyDtoHAsync", 2)];
    for (call, nth) in failures.into_iter().chain(copies) {
        session.fail(call, nth, 2);
        assert!(matches!(spread.embed(&batch).unwrap_err(), ModelError::OutOfMemory(_)), "{call} {nth}");
        for _ in 0..2 {
            assert!(spread.embed(&batch).unwrap() == expected, "{call} {nth}");
        }
    }
    assert_no_misuse(&session);
    session.fail("cuLaunchKernel", 20, 700);
    spread.embed(&batch).unwrap_err();
    assert_eq!([gpus[0].is_lost(), gpus[1].is_lost()], [false, true]);
    assert!(Gpu::reset(1).is_err(), "the model holds the GPU open");
    let [first, lost] = <[Arc<Gpu>; 2]>::try_from(gpus).unwrap();
    drop((spread, lost));
    Gpu::reset(1).unwrap();
    let spread = load(&[first, Gpu::open(1).unwrap()]);
    assert!(spread.embed(&batch).unwrap() == expected);
}

#[test]
fn model_is_spread_where_none_of_the_gpus_holds_it_and_all_together_do() {
    let (session, gpus) = gpus(3);
    let (one, [two, _]) = devices(&gpus);
    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::Bert, 5)));
    let options = options(Dtype::F32);
    let [whole, _, none] = needed(&session, || SentenceEncoder::load(&files, &options, &one));
    let is_spread = |memory, count: usize| {
        session.set_memory(memory);
        SentenceEncoder::is_spread(&files, &options, &gpus[..count]).unwrap()
    };
    let found = [(whole, 2), (whole - 1, 2), (whole - 1, 3), (whole - 1, 1), (none, 2)];
    assert_eq!(found.map(|(memory, count)| is_spread(memory, count)), [false, true, true, false, false]);
    session.set_memory(whole - 1);
    SentenceEncoder::load(&files, &options, &two).unwrap();
    // One of them, or two, have too little memory: each is a device of its own.
    for filled in [&gpus[..1], &gpus[..2]] {
        let _filled: Vec<_> = filled.iter().map(|gpu| DeviceBuffer::new(gpu, 1).unwrap()).collect();
        assert_eq!([2, 3].map(|count| is_spread(whole, count)), [filled.len() == 2, false], "{}", filled.len());
    }
}

#[test]
fn gpu_with_the_most_memory_streams_a_model_that_does_not_fit_onto_all() {
    let (session, gpus) = gpus(3);
    let (one, [two, _]) = devices(&gpus);
    let backbone = config(ModelKind::Bert, 5);
    let (_folder, files) = files_of(&Checkpoint::new(backbone.clone()));
    let kind = HeadKind::TokenClassification;
    let (_head_folder, head_files) = files_of(&Checkpoint::new(backbone.clone()).head(kind).head_only());
    let options = options(Dtype::F32);
    let outputs = |encoder: &SentenceEncoder| {
        let head = SharedHead::load(&head_files, &backbone, kind, &options, &encoder.head_device()).unwrap();
        encoder.embed_with(&batch(), &[head]).unwrap()
    };
    let expected = outputs(&SentenceEncoder::load(&files, &options, &one).unwrap());
    let [_, streamed, _] = needed(&session, || SentenceEncoder::load(&files, &options, &one));
    for (filled, streams) in [(1, 0), (0, 1)] {
        session.set_memory(streamed);
        let _filled = DeviceBuffer::new(&gpus[filled], 4096).unwrap();
        let encoder = SentenceEncoder::load(&files, &options, &two).unwrap();
        assert!(encoder.report().streaming.is_some());
        assert_eq!([filled, streams].map(|gpu| session.memory_in_use(gpu as u32) > 4096), [false, true]);
        assert!(outputs(&encoder) == expected, "cuda:{streams} streams");
    }
    assert_no_misuse(&session);
    session.set_memory(streamed - 1);
    let error = SentenceEncoder::load(&files, &options, &two).unwrap_err().to_string();
    assert!(error.starts_with("cuda:") && error.contains("set model.dtype to bf16"), "{error}");
}

#[test]
fn tied_word_embeddings_are_planned_on_the_last_gpu() {
    let (session, gpus) = gpus(2);
    // Its word embeddings are larger than all its layers.
    let large = ModelConfig { vocab_size: 4096, ..config(ModelKind::XlmRoberta, 5) };
    let words = 4 * (large.vocab_size * large.hidden_size) as u64;
    let (_folder, files) = files_of(&Checkpoint::new(large).head(HeadKind::MaskedLm));
    let (options, kind) = (options(Dtype::F32), HeadKind::MaskedLm);
    let is_spread = |memory| {
        session.set_memory(memory);
        HeadModel::is_spread(&files, kind, &options, &gpus).unwrap()
    };
    // The least memory of a GPU for which the model is spread.
    let one = Device::Cuda(Arc::clone(&gpus[0]));
    let [whole, ..] = needed(&session, || HeadModel::load(&files, kind, &options, &one));
    let (mut too_little, mut enough) = (RESERVED_BYTES, whole - 1);
    assert!(is_spread(enough));
    while too_little + 1 < enough {
        let middle = u64::midpoint(too_little, enough);
        if is_spread(middle) { enough = middle } else { too_little = middle }
    }
    session.set_memory(enough);
    let model = HeadModel::load(&files, kind, &options, &Device::CudaStages(gpus.clone().into())).unwrap();
    let in_use = [0, 1].map(|gpu| session.memory_in_use(gpu));
    // The tensors of a head are aligned.
    let planned = enough - RESERVED_BYTES + 4096;
    assert!(in_use.iter().all(|&bytes| bytes > words && bytes <= planned), "{in_use:?} of {planned}");
    drop(model);
}

#[test]
fn times_of_kernels_are_those_of_all_gpus() {
    let (_session, gpus) = gpus(2);
    for gpu in &gpus {
        gpu.set_profile(true);
    }
    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::Bert, 5)));
    let encoder = SentenceEncoder::load(&files, &options(Dtype::F32), &Device::CudaStages(gpus.into())).unwrap();
    encoder.embed(&PackedBatch::new(&rows()[..5]).unwrap()).unwrap();
    let times = encoder.take_kernel_times();
    let up: Vec<u32> = times.iter().filter(|time| time.label == "up").map(|time| time.launches).collect();
    assert_eq!(up, [5], "one for each layer");
    assert!(encoder.take_kernel_times().is_empty());
}

#[test]
fn groups_that_no_model_can_use_are_refused() {
    let (_session, gpus) = gpus(3);
    let (_, [two, three]) = devices(&gpus);
    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::Bert, 2)));
    let error = |files: &ModelFiles, device| {
        SentenceEncoder::load(files, &options(Dtype::F32), device).unwrap_err().to_string()
    };
    assert_eq!(error(&files, &three), "a model of 2 layers cannot be spread over 3 GPUs");
    let twice = Device::CudaStages([0, 0].map(|at: usize| Arc::clone(&gpus[at])).into());
    let found = error(&files, &twice);
    assert!(found.starts_with("cuda:0 (") && found.ends_with(") is named twice for one model"), "{found}");
    SentenceEncoder::load(&files, &options(Dtype::F32), &two).unwrap();
}

#[test]
fn weights_by_formula_are_spread_too() {
    let (_session, gpus) = gpus(3);
    // Nothing is padded.
    let config =
        ModelConfig { hidden_size: 64, num_attention_heads: 2, intermediate_size: 128, ..config(ModelKind::Bert, 4) };
    let vectors = expect_same(&gpus, |device| {
        SentenceEncoder::synthetic(&config, &options(Dtype::F16), device).unwrap().embed(&batch()).unwrap()
    });
    assert_eq!(vectors.len(), 20 * 64);
}
