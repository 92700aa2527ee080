//! Pools on two GPUs of a fake driver, whose kernels run on the CPU and fail on request.

#![cfg(target_os = "linux")]

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use polylance_backend::{
    AnnotateInput, Annotated, Annotation, Annotator, Backend, BackendError, Embeddings, EncodeInput, TokenizeSpec,
};
use polylance_encoder::{HeadKind, ModelConfig, ModelError, ModelFiles, synthetic::Checkpoint};
use polylance_fake_cuda::{Entry, FakeDriver, Session};
use polylance_schema::{Chunking, Dtype, Scores, TaskSpec};
use polylance_worker::{
    DevicePool, FusedHead, GPU_LANES, Machine, PoolError, PoolOptions, TaskPool, TokenStates, VisibleGpu,
};

/// Maximum difference between vectors of a GPU and of a CPU in f32.
const TOLERANCE: f32 = 1e-5;
const BATCH_TOKENS: usize = 64;
const CLASSIFY: TaskSpec = TaskSpec::Classify { scores: Scores::Best };
/// An illegal address: the context is lost.
const LOST: i32 = 700;
/// The call does not return until the test releases it.
const HANGS: i32 = -1;
/// Memory of a GPU that is left free.
const RESERVED_BYTES: u64 = 512 << 20;
/// How long loading may take on a busy machine.
const LOAD_TIMEOUT: Duration = Duration::from_mins(1);

fn driver() -> Session {
    FakeDriver::session_with(&[("FAKE_CUDA_DEVICES", "2")])
}

fn model(folder: &Path) -> ModelFiles {
    model_of(folder, ModelConfig::tiny())
}

fn model_of(folder: &Path, config: ModelConfig) -> ModelFiles {
    let config = ModelConfig { vocab_size: 250_002, ..config };
    let checkpoint = Checkpoint::new(config).head(HeadKind::SequenceClassification).labels(&["a", "b", "c"]);
    checkpoint.head_scale(6.0).write(folder).unwrap();
    std::fs::write(folder.join("tokenizer.json"), polylance_builtin::tokenizer_json()).unwrap();
    ModelFiles::find(folder.to_str().unwrap()).unwrap()
}

fn options(devices: &[&str]) -> PoolOptions {
    let devices = devices.iter().map(|&name| name.to_owned()).collect();
    PoolOptions { devices, dtype: Some(Dtype::F32), batch_tokens: Some(BATCH_TOKENS), ..PoolOptions::default() }
}

fn open(files: &ModelFiles, devices: &[&str]) -> DevicePool {
    DevicePool::open(files, &options(devices)).unwrap()
}

fn inputs(count: u32) -> Vec<Vec<u32>> {
    let input = |number: u32| [0].into_iter().chain((0..number % 9).map(|at| 5 + number * 7 + at)).chain([2]).collect();
    (0..count).map(input).collect()
}

fn encode(pool: &DevicePool, inputs: &[Vec<u32>]) -> Embeddings {
    block_on(pool.encode(inputs.to_vec())).unwrap()
}

fn assert_near(found: &Embeddings, expected: &Embeddings) {
    assert_eq!(found.values.len(), expected.values.len());
    let apart = found.values.iter().zip(&expected.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart <= TOLERANCE, "vectors are {apart} apart");
}

fn assert_labels_near(found: &Annotated, expected: &Annotated) {
    let label = |annotated: &Annotated| match annotated {
        Ok(Annotation::Labels(labels)) => (labels[0].label.clone(), labels[0].score),
        other => panic!("{other:?}"),
    };
    let ((found, score), (expected, other)) = (label(found), label(expected));
    assert!(found == expected && (score - other).abs() <= TOLERANCE, "{found} {score}, {expected} {other}");
}

/// Short texts, each in one chunk.
fn whole_texts() -> TokenizeSpec {
    TokenizeSpec { prefix: String::new(), chunking: Chunking::Truncate { max_tokens: 16 } }
}

/// The GPUs of the calls of a driver function.
fn calls(log: &[Entry], function: &str) -> Vec<u32> {
    let gpu = |entry: &Entry| match entry {
        Entry::Call { device, name, .. } if name == function => *device,
        _ => None,
    };
    log.iter().filter_map(gpu).collect()
}

/// The GPUs whose contexts were destroyed.
fn resets(log: &[Entry]) -> Vec<u32> {
    calls(log, "cuDevicePrimaryCtxReset")
}

#[test]
fn auto_selects_all_gpus_and_their_vectors_match_the_cpu() {
    let driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let files = model(folder.path());
    let expected = encode(&open(&files, &["cpu"]), &inputs(60));
    driver.take_log();
    let pool = open(&files, &[]);
    let mut opened = calls(&driver.take_log(), "cuModuleLoadData");
    opened.sort_unstable();
    assert_eq!(opened, [0, 1], "each is opened once");
    assert_eq!(pool.info().devices, ["cuda:0", "cuda:1"]);
    assert_eq!(pool.info().window_tokens, 2 * GPU_LANES * BATCH_TOKENS);
    let found = encode(&pool, &inputs(60));
    assert_near(&found, &expected);
    assert_eq!(encode(&open(&files, &["cuda:1"]), &inputs(60)), found, "one GPU gives the same bits as two");
    let machine = Machine::this();
    assert_eq!(machine.gpus().unwrap().len(), 2);
    assert_eq!(machine.gpu(1).map(VisibleGpu::architecture).as_deref(), Some("sm_80"));
}

#[test]
fn pool_on_gpus_passes_backend_conformance() {
    let _driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let config = ModelConfig { max_position_embeddings: 512, num_hidden_layers: 1, ..ModelConfig::tiny() };
    let pool = open(&model_of(folder.path(), config), &["cuda:0", "cuda:1"]);
    block_on(polylance_testkit::conformance::backend(&pool));
}

#[test]
fn gpus_are_loaded_in_parallel() {
    let driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let files = model(folder.path());
    // The first to load waits until the other one has its weights.
    driver.fail("cuMemAlloc", 1, HANGS);
    let opening = thread::spawn(move || open(&files, &["cuda:0", "cuda:1"]));
    let started = Instant::now();
    let is_upload = |entry: &Entry| matches!(entry, Entry::Upload { .. });
    let mut is_loaded = false;
    while !is_loaded && started.elapsed() < LOAD_TIMEOUT {
        thread::sleep(Duration::from_millis(10));
        is_loaded = driver.take_log().iter().any(is_upload);
    }
    driver.release();
    assert_eq!(opening.join().unwrap().info().devices, ["cuda:0", "cuda:1"]);
    assert!(is_loaded, "one GPU waited for the other");
}

#[test]
fn lost_gpu_is_reloaded_and_no_row_is_lost() {
    let driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let files = model(folder.path());
    let pool = open(&files, &["cuda:0"]);
    let expected = encode(&pool, &inputs(60));
    // At the first launch, in the middle of a pass, and while outputs are read.
    for (call, nth) in [("cuLaunchKernel", 1), ("cuLaunchKernel", 20), ("cuMemcpyDtoHAsync", 2)] {
        driver.take_log();
        driver.fail(call, nth, LOST);
        assert_eq!(encode(&pool, &inputs(60)), expected, "{call} {nth}");
        assert_eq!(resets(&driver.take_log()), [0], "{call} {nth}");
    }
}

#[test]
fn second_pool_on_a_lost_gpu_is_dropped_and_reloaded() {
    let driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let files = model(folder.path());
    let pool = open(&files, &["cuda:0"]);
    let heads = TaskPool::open(&files, CLASSIFY, &options(&["cuda:0"])).unwrap();
    let input = || AnnotateInput { text: "tea".to_owned(), ..AnnotateInput::default() };
    let (vectors, annotations) = (encode(&pool, &inputs(20)), block_on(heads.annotate(vec![input()])).unwrap());
    driver.take_log();
    driver.fail("cuLaunchKernel", 3, LOST);
    assert_eq!(encode(&pool, &inputs(20)), vectors);
    assert_eq!(block_on(heads.annotate(vec![input()])).unwrap(), annotations);
    assert_eq!(encode(&pool, &inputs(20)), vectors);
    assert_eq!(resets(&driver.take_log()), [0]);
}

/// Loses a GPU at the first launch, and lets the resets of both of its lanes fail.
fn break_a_gpu(driver: &Session) {
    driver.fail("cuLaunchKernel", 1, LOST);
    (0..64).for_each(|_| driver.fail("cuDevicePrimaryCtxReset", 1, 999));
}

#[test]
fn other_gpu_takes_the_work_of_one_that_cannot_be_reloaded() {
    let driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let pool = open(&model(folder.path()), &["cuda:0", "cuda:1"]);
    let expected = encode(&pool, &inputs(60));
    break_a_gpu(&driver);
    for _ in 0..2 {
        assert_eq!(encode(&pool, &inputs(60)), expected);
    }
}

#[test]
fn last_gpu_that_cannot_be_reloaded_ends_the_run_with_the_drivers_message() {
    let driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let pool = open(&model(folder.path()), &["cuda:1"]);
    break_a_gpu(&driver);
    for _ in 0..2 {
        let error = block_on(pool.encode(inputs(60))).map(|vectors| vectors.values.len()).unwrap_err();
        let named = matches!(&error, BackendError::Device { device, .. } if device == "cuda:1");
        assert!(named && error.to_string().contains("cuDevicePrimaryCtxReset returned 999"), "{error}");
    }
}

#[test]
fn hanging_gpu_is_given_up_and_the_other_computes_every_row() {
    let driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let limited = PoolOptions { stall: Some(Duration::from_secs(2)), ..options(&["cuda:0", "cuda:1"]) };
    let pool = DevicePool::open(&model(folder.path()), &limited).unwrap();
    let expected = encode(&pool, &inputs(60));
    driver.fail("cuEventSynchronize", 1, HANGS);
    for _ in 0..2 {
        assert_eq!(encode(&pool, &inputs(60)), expected);
    }
    driver.release();
}

#[test]
fn fused_and_separate_heads_agree_on_a_gpu() {
    let _driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let files = model(folder.path());
    let head = FusedHead { files: files.clone(), spec: CLASSIFY };
    let pool = DevicePool::open_with_heads(&files, &[head], &options(&["cuda:0"])).unwrap();
    let heads = TaskPool::open(&files, CLASSIFY, &options(&["cuda:0", "cuda:1"])).unwrap();
    assert_eq!(heads.devices(), ["cuda:0", "cuda:1"]);
    let texts: Vec<String> = ["green tea", "São Paulo", "教育"].map(str::to_owned).to_vec();
    let chunks = block_on(pool.tokenize(texts.clone(), &whole_texts())).unwrap();
    let inputs = texts
        .iter()
        .zip(chunks)
        .map(|(text, chunks)| EncodeInput { input_ids: chunks[0].input_ids.clone(), text: text.clone() });
    let fused = block_on(pool.encode_with_heads(inputs.collect())).unwrap().annotations;
    let input = |text: &String| AnnotateInput { text: text.clone(), ..AnnotateInput::default() };
    let separate = block_on(heads.annotate(texts.iter().map(input).collect())).unwrap();
    for (fused, separate) in fused.iter().zip(&separate) {
        assert_labels_near(&fused[0], separate);
    }
}

#[test]
fn token_states_use_the_cores_and_refuse_a_named_gpu() {
    let driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let files = model(folder.path());
    let states = TokenStates::open(&files, "", &PoolOptions::default()).unwrap();
    assert_eq!(block_on(states.token_states(vec!["tea".to_owned()])).unwrap().len(), 1);
    assert!(driver.take_log().is_empty(), "the driver is not called");
    let error = TokenStates::open(&files, "", &options(&["cuda:0"])).unwrap_err();
    assert!(matches!(&error, PoolError::Device { device, .. } if device == "cuda:0"), "{error}");
    assert!(error.to_string().contains("on the CPU"), "{error}");
}

#[test]
fn model_too_large_for_a_gpu_is_refused_with_a_remedy() {
    let _driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let files = model(folder.path());
    let huge = PoolOptions { batch_tokens: Some(1 << 28), ..options(&["cuda:1"]) };
    let error = DevicePool::open(&files, &huge).unwrap_err().to_string();
    assert!(error.starts_with("cuda:1 (") && error.contains("set model.batch_tokens lower"), "{error}");
    let int8 = PoolOptions { dtype: Some(Dtype::Int8), ..options(&["cuda:1"]) };
    let error = DevicePool::open(&files, &int8).unwrap_err().to_string();
    assert_eq!(error, "dtype int8 is computed on the CPU alone; a GPU has bf16");
    // `auto` selects the cores for int8.
    let int8 = PoolOptions { dtype: Some(Dtype::Int8), ..options(&[]) };
    assert!(DevicePool::open(&files, &int8).unwrap().info().devices.iter().all(|name| name.starts_with("cpu")));
}

/// Memory of each GPU that does not quite hold the model.
fn memory_below(driver: &Session, files: &ModelFiles) -> u64 {
    driver.set_memory(0);
    match DevicePool::open(files, &options(&["cuda:0"])).map(|pool| pool.info().devices.clone()) {
        Err(PoolError::Model(ModelError::DeviceMemory { weights, batch, .. })) => weights + batch + RESERVED_BYTES - 1,
        other => panic!("{other:?}"),
    }
}

#[test]
fn model_that_no_gpu_holds_is_spread_and_only_the_lost_gpu_is_reset() {
    let driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let files = model_of(folder.path(), ModelConfig { num_hidden_layers: 3, ..ModelConfig::tiny() });
    let expected = encode(&open(&files, &["cuda:0", "cuda:1"]), &inputs(60));
    driver.set_memory(memory_below(&driver, &files));
    let pool = open(&files, &["cuda:1", "cuda:0"]);
    assert_eq!(pool.info().devices, ["cuda:0+cuda:1"]);
    assert_eq!(pool.info().window_tokens, (GPU_LANES + 1) * BATCH_TOKENS);
    assert_eq!(encode(&pool, &inputs(60)), expected, "the bits of one GPU");
    // At the start, when both GPUs compute, and while states are read.
    for (call, nth) in [("cuLaunchKernel", 3), ("cuLaunchKernel", 40), ("cuMemcpyDtoHAsync", 1)] {
        driver.take_log();
        driver.fail(call, nth, LOST);
        assert_eq!(encode(&pool, &inputs(60)), expected, "{call} {nth}");
        let log = driver.take_log();
        let lost = log.iter().find_map(|entry| match entry {
            Entry::Call { device, code: LOST, .. } => *device,
            _ => None,
        });
        assert_eq!(resets(&log), [lost.unwrap()], "{call} {nth}");
        assert!([0, 1].iter().all(|&gpu| driver.memory_in_use(gpu) > 0), "it is spread again: {call} {nth}");
    }
}

#[test]
fn gpu_that_is_lost_before_a_model_is_spread_is_an_error_and_reset_at_the_next_start() {
    let driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let files = model(folder.path());
    driver.fail("cuMemGetInfo", 1, LOST);
    let error = DevicePool::open(&files, &options(&["cuda:0", "cuda:1"])).unwrap_err();
    assert!(matches!(&error, PoolError::Load { device, .. } if device == "cuda:0+cuda:1"), "{error}");
    driver.take_log();
    let pool = open(&files, &["cuda:0", "cuda:1"]);
    assert_eq!(resets(&driver.take_log()), [0]);
    assert_eq!(pool.info().devices, ["cuda:0", "cuda:1"]);
}

#[test]
fn fused_heads_and_tasks_work_on_gpus_that_a_model_is_spread_over() {
    let driver = driver();
    let folder = tempfile::tempdir().unwrap();
    let files = model(folder.path());
    let input = || AnnotateInput { text: "tea".to_owned(), ..AnnotateInput::default() };
    let open_tasks = || TaskPool::open(&files, CLASSIFY, &options(&["cuda:0", "cuda:1"])).unwrap();
    let expected = block_on(open_tasks().annotate(vec![input()])).unwrap();
    driver.set_memory(memory_below(&driver, &files));
    let spread = open_tasks();
    assert_eq!(spread.devices(), ["cuda:0+cuda:1"]);
    assert_eq!(block_on(spread.annotate(vec![input()])).unwrap(), expected);
    drop(spread);
    let head = FusedHead { files: files.clone(), spec: CLASSIFY };
    let pool = DevicePool::open_with_heads(&files, &[head], &options(&["cuda:0", "cuda:1"])).unwrap();
    assert_eq!(pool.info().devices, ["cuda:0+cuda:1"]);
    let chunks = block_on(pool.tokenize(vec!["tea".to_owned()], &whole_texts())).unwrap();
    let encode_input = EncodeInput { input_ids: chunks[0][0].input_ids.clone(), text: "tea".to_owned() };
    let fused = block_on(pool.encode_with_heads(vec![encode_input])).unwrap().annotations;
    assert_labels_near(&fused[0][0], &expected[0]);
}
