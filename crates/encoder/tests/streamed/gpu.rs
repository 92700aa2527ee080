//! Layers from the host's memory, on a GPU, with copies that run as late and as early as their order allows.

use std::thread;

use polylance_encoder::{
    Device, Generation, Gpu, HeadKind, HeadModel, LoadOptions, ModelConfig, ModelError, ModelKind, PackedBatch, Result,
    SentenceEncoder, SharedHead,
    synthetic::{Checkpoint, Format},
};
use polylance_fake_cuda::{Copies, Entry, Session};
use polylance_schema::Dtype;

use super::{batch_of, config, files_of, sequences};

/// Device memory that a plan leaves free.
pub(super) const RESERVED_BYTES: u64 = 512 << 20;

pub(super) fn rows() -> Vec<Vec<u32>> {
    sequences(20, 31)
}

/// 280 tokens: two passes.
pub(super) fn batch() -> PackedBatch {
    batch_of(&rows())
}

fn gpu(copies: Copies) -> (Session, Device) {
    let session = super::driver();
    session.set_copies(copies);
    (session, Device::Cuda(Gpu::open(0).unwrap()))
}

pub(super) fn options(dtype: Dtype) -> LoadOptions {
    LoadOptions { dtype: Some(dtype), batch_tokens: Some(256), ..LoadOptions::default() }
}

/// The free memory that a model and a batch need on the first GPU: all layers, streamed ones, and none.
pub(super) fn needed<T>(session: &Session, load: impl FnOnce() -> Result<T>) -> [u64; 3] {
    session.set_memory(session.memory_in_use(0));
    match load() {
        Err(ModelError::DeviceMemory { weights, streamed, batch, .. }) => {
            [weights, streamed, 0].map(|weights| weights + batch + RESERVED_BYTES)
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("no memory was enough"),
    }
}

/// Batches that lanes compute at the same time, each in another order, have the vectors of `whole`.
pub(super) fn expect_same_in_lanes(lanes: usize, model: &SentenceEncoder, whole: &SentenceEncoder, copies: Copies) {
    let batches: Vec<PackedBatch> = rows().chunks(4).map(|rows| PackedBatch::new(rows).unwrap()).collect();
    let expected: Vec<Vec<f32>> = batches.iter().map(|batch| whole.embed(batch).unwrap()).collect();
    thread::scope(|scope| {
        for lane in 0..lanes {
            let (batches, expected) = (&batches, &expected);
            scope.spawn(move || {
                for at in 0..10 {
                    let at = (at + lane) % batches.len();
                    assert!(model.embed(&batches[at]).unwrap() == expected[at], "{copies:?} {lane} {at}");
                }
            });
        }
    });
}

/// Loads on a device with this much free memory.
fn load_with<T>(session: &Session, free: u64, load: impl FnOnce() -> Result<T>) -> T {
    session.set_memory(session.memory_in_use(0) + free);
    let loaded = load().unwrap();
    // Later allocations are not the subject of these tests.
    session.set_memory(4 << 30);
    loaded
}

/// The model on the device, and the same with streamed layers.
fn resident_and_streamed<T>(session: &Session, load: impl Fn() -> Result<T>) -> (T, T) {
    let [resident, streamed, _] = needed(session, &load);
    (load_with(session, resident, &load), load_with(session, streamed, &load))
}

pub(super) fn assert_no_misuse(session: &Session) {
    let misuse = session.take_log().into_iter().find(|entry| matches!(entry, Entry::Misuse { .. }));
    assert_eq!(misuse, None);
}

#[test]
fn vectors_and_states_are_the_same_for_any_kind_and_dtype() {
    let cases = [
        (ModelKind::XlmRobertaXl, 6, Dtype::F32, Format::F32),
        (ModelKind::XlmRobertaXl, 5, Dtype::Bf16, Format::Bf16),
        (ModelKind::XlmRoberta, 3, Dtype::F16, Format::F32),
        (ModelKind::Bert, 4, Dtype::Bf16, Format::F32),
    ];
    for (kind, layers, dtype, format) in cases {
        let (_folder, files) = files_of(&Checkpoint::new(config(kind, layers)).format(format));
        for copies in [Copies::Late, Copies::Early] {
            let (session, device) = gpu(copies);
            let load = || SentenceEncoder::load(&files, &options(dtype), &device);
            let (resident, streamed) = resident_and_streamed(&session, load);
            assert_eq!(resident.report().streaming, None);
            assert!(streamed.report().streaming.is_some());
            let numbers = |model: &SentenceEncoder| {
                let states = model.hidden_states(&batch()).unwrap().flatten_all().unwrap();
                (states.to_vec1::<f32>().unwrap(), model.embed(&batch()).unwrap())
            };
            let expected = numbers(&resident);
            assert!(expected.1.len() == 20 * 48 && expected.0.iter().all(|number| number.is_finite()));
            // Later batches find the first layer on the device.
            for round in 0..3 {
                assert!(numbers(&streamed) == expected, "{kind:?} {dtype} {copies:?}, round {round}");
            }
            assert_no_misuse(&session);
        }
    }
}

#[test]
fn two_layers_are_on_the_device_and_all_in_page_locked_memory() {
    let (session, device) = gpu(Copies::Late);
    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRobertaXl, 6)));
    let load = || SentenceEncoder::load(&files, &options(Dtype::Bf16), &device);
    let [resident, streamed, _] = needed(&session, load);
    let in_use = || [session.memory_in_use(0), session.pinned_in_use(0)];
    let memory_of = |free| {
        let before = in_use();
        let model = load_with(&session, free, load);
        model.embed(&batch()).unwrap();
        let after = in_use();
        (model.report().streaming, after[0] - before[0], after[1] - before[1])
    };
    let (none, resident_bytes, resident_pinned) = memory_of(resident);
    let (streaming, streamed_bytes, streamed_pinned) = memory_of(streamed);
    let layer_bytes = streaming.unwrap().layer_bytes;
    assert_eq!((none, streaming.unwrap().state_tokens), (None, 256));
    assert_eq!(resident_bytes - streamed_bytes, 4 * layer_bytes);
    assert_eq!(streamed_pinned - resident_pinned, 6 * layer_bytes);
    // Each batch copies each layer once, and the first one for the next batch.
    let model = load_with(&session, streamed, load);
    model.embed(&PackedBatch::new(&[vec![5, 6]]).unwrap()).unwrap();
    session.take_log();
    model.embed(&PackedBatch::new(&[vec![5, 6]]).unwrap()).unwrap();
    let is_layer = |entry: &Entry| matches!(entry, Entry::Upload { bytes, .. } if *bytes == layer_bytes);
    assert_eq!(session.take_log().iter().filter(|entry| is_layer(entry)).count(), 6);
    drop(model);
    assert_eq!(in_use(), [0, 0]);
}

#[test]
fn logits_are_the_same_for_any_head() {
    for copies in [Copies::Late, Copies::Early] {
        let (session, device) = gpu(copies);
        for head in [
            HeadKind::SequenceClassification,
            HeadKind::TokenClassification,
            HeadKind::QuestionAnswering,
            HeadKind::MultipleChoice,
        ] {
            let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRoberta, 4)).head(head));
            let load = || HeadModel::load(&files, head, &options(Dtype::Bf16), &device);
            let (resident, streamed) = resident_and_streamed(&session, load);
            let expected = resident.forward(&batch()).unwrap();
            assert!(expected.len() == 20 && streamed.report().streaming.is_some());
            assert!(streamed.forward(&batch()).unwrap() == expected, "{head} {copies:?}");
        }
        assert_no_misuse(&session);
    }
}

#[test]
fn fused_heads_read_the_states_of_streamed_layers() {
    let (session, device) = gpu(Copies::Late);
    let backbone = config(ModelKind::Bert, 5);
    let (_folder, files) = files_of(&Checkpoint::new(backbone.clone()));
    let kinds = [HeadKind::SequenceClassification, HeadKind::TokenClassification];
    let folders = kinds.map(|kind| files_of(&Checkpoint::new(backbone.clone()).head(kind).head_only()));
    let dtype = Dtype::F32;
    let heads: Vec<SharedHead> = kinds
        .iter()
        .zip(&folders)
        .map(|(kind, (_, head))| SharedHead::load(head, &backbone, *kind, &options(dtype), &device).unwrap())
        .collect();
    let load = || SentenceEncoder::load(&files, &options(dtype), &device);
    let (resident, streamed) = resident_and_streamed(&session, load);
    let expected = resident.embed_with(&batch(), &heads).unwrap();
    assert!(streamed.embed_with(&batch(), &heads).unwrap() == expected);
}

#[test]
fn language_models_fill_masks_and_generate_from_streamed_layers() {
    for copies in [Copies::Late, Copies::Early] {
        let (session, device) = gpu(copies);
        let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRoberta, 5)).head(HeadKind::MaskedLm));
        let load = || HeadModel::load(&files, HeadKind::MaskedLm, &options(Dtype::Bf16), &device);
        let (resident, streamed) = resident_and_streamed(&session, load);
        let positions: Vec<Vec<usize>> =
            rows().iter().map(|row| if row.len() > 9 { vec![8, 2] } else { Vec::new() }).collect();
        let expected = resident.mask_logits(&batch(), &positions).unwrap();
        assert!(streamed.mask_logits(&batch(), &positions).unwrap() == expected, "{copies:?}");

        let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::Bert, 3)).head(HeadKind::CausalLm).untied());
        let load = || HeadModel::load(&files, HeadKind::CausalLm, &options(Dtype::F32), &device);
        let (resident, streamed) = resident_and_streamed(&session, load);
        let generation = Generation { max_new_tokens: 9, ..Generation::default() };
        let ids = streamed.generate(&[5, 9, 7], &generation).unwrap();
        assert_eq!(ids, resident.generate(&[5, 9, 7], &generation).unwrap(), "{copies:?}");
        assert!(streamed.forward(&batch()).unwrap() == resident.forward(&batch()).unwrap(), "{copies:?}");
        assert_no_misuse(&session);
    }
}

#[test]
fn two_lanes_share_the_layers_on_the_device() {
    for copies in [Copies::Late, Copies::Early] {
        let (session, device) = gpu(copies);
        let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRobertaXl, 5)));
        let load = || SentenceEncoder::load(&files, &options(Dtype::Bf16), &device);
        let (resident, streamed) = resident_and_streamed(&session, load);
        expect_same_in_lanes(2, &streamed, &resident, copies);
        assert_no_misuse(&session);
    }
}

#[test]
fn failed_batches_do_not_change_later_ones() {
    let (session, device) = gpu(Copies::Late);
    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRobertaXl, 4)));
    let load = || SentenceEncoder::load(&files, &options(Dtype::Bf16), &device);
    let (resident, streamed) = resident_and_streamed(&session, load);
    let batch = PackedBatch::new(&rows()[..5]).unwrap();
    let expected = resident.embed(&batch).unwrap();
    drop(resident);
    // At the first layer, in the middle of layers, and behind them; the batch itself, and the copies of layers.
    for launch in [2, 10, 24, 29] {
        for (call, nth) in [("cuLaunchKernel", launch), ("cuMemcpyHtoDAsync", launch / 7 + 1)] {
            session.fail(call, nth, 2);
            assert!(matches!(streamed.embed(&batch).unwrap_err(), ModelError::OutOfMemory(_)), "{call} {nth}");
            for _ in 0..2 {
                assert!(streamed.embed(&batch).unwrap() == expected, "{call} {nth}");
            }
        }
    }
    assert_no_misuse(&session);
    // A lost device is reset after everything on it is dropped, as for a model that is not streamed.
    session.fail("cuLaunchKernel", 20, 700);
    streamed.embed(&batch).unwrap_err();
    let Device::Cuda(lost) = &device else { panic!("a GPU") };
    assert!(lost.is_lost() && Gpu::reset(0).is_err());
    drop((streamed, device));
    Gpu::reset(0).unwrap();
    assert_eq!([session.memory_in_use(0), session.pinned_in_use(0)], [0, 0]);
    let device = Device::Cuda(Gpu::open(0).unwrap());
    let load = || SentenceEncoder::load(&files, &options(Dtype::Bf16), &device);
    let (_, streamed) = resident_and_streamed(&session, load);
    assert!(streamed.embed(&batch).unwrap() == expected);
}

#[test]
fn layers_are_streamed_only_where_the_model_does_not_fit() {
    let (session, device) = gpu(Copies::Late);
    let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::Bert, 3)));
    let load = || SentenceEncoder::load(&files, &options(Dtype::F32), &device);
    let [resident, streamed, _] = needed(&session, load);
    let is_streamed = |free| load_with(&session, free, load).report().streaming.is_some();
    assert_eq!([resident, resident - 1, streamed].map(is_streamed), [false, true, true]);
    session.set_memory(streamed - 1);
    let error = load().unwrap_err().to_string();
    assert!(error.contains("has 0.5 GiB free; the model takes 0.0 GiB in f32 (0.0 GiB if its layers"), "{error}");
    assert!(error.contains("set model.dtype to bf16"), "{error}");

    // The layers take memory of the host, which has a limit, but only if they are streamed.
    let limited = LoadOptions { memory: Some(1000), ..options(Dtype::F32) };
    let load = || SentenceEncoder::load(&files, &limited, &device);
    load_with(&session, resident, load);
    session.set_memory(streamed);
    let Err(ModelError::HostMemory { limit: 1000, layers, .. }) = load() else { panic!("a limit") };
    assert!(layers > 3 * 12 * 48 * 48);
    let enough = LoadOptions { memory: Some(layers), ..options(Dtype::F32) };
    load_with(&session, streamed, || SentenceEncoder::load(&files, &enough, &device));
}

#[test]
fn model_of_one_or_two_layers_is_never_streamed() {
    let (session, device) = gpu(Copies::Late);
    for layers in [1, 2] {
        let (_folder, files) = files_of(&Checkpoint::new(config(ModelKind::XlmRobertaXl, layers)));
        let load = || SentenceEncoder::load(&files, &options(Dtype::Bf16), &device);
        let [resident, streamed, _] = needed(&session, load);
        assert_eq!(resident, streamed);
        session.set_memory(resident - 1);
        let error = load().unwrap_err().to_string();
        assert!(error.contains("the model takes 0.0 GiB in bf16, a batch of 256 tokens"), "{error}");
        let model = load_with(&session, resident, load);
        assert!(model.embed(&batch()).unwrap().iter().all(|number| number.is_finite()));
    }
}

#[test]
fn weights_by_formula_are_streamed_too() {
    let (session, device) = gpu(Copies::Late);
    // Nothing is padded.
    let config =
        ModelConfig { hidden_size: 64, num_attention_heads: 2, intermediate_size: 128, ..config(ModelKind::Bert, 4) };
    let load = || SentenceEncoder::synthetic(&config, &options(Dtype::F16), &device);
    let (resident, streamed) = resident_and_streamed(&session, load);
    assert!(streamed.report().streaming.is_some());
    assert!(streamed.embed(&batch()).unwrap() == resident.embed(&batch()).unwrap());
}
