//! Devices that return errors or make no progress, and threads that panic.

use std::{
    sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, ThreadId},
};

use futures::executor::block_on;

use super::*;
use crate::device::Devices;

const STALL: Duration = Duration::from_millis(100);
/// Tokens from here on stall the device.
const STUCK: u32 = 1000;
/// The late output of a thread that stalled.
const LATE: u32 = u32::MAX;

/// The state that the test and all workers share.
#[derive(Default)]
struct TestState {
    /// Threads that stalled, and those that computed something.
    stalled: Vec<ThreadId>,
    computed: Vec<ThreadId>,
    over: bool,
}

#[derive(Clone, Default)]
struct Stage(Arc<(Mutex<TestState>, Condvar)>);

impl Stage {
    fn change(&self, change: impl FnOnce(&mut TestState)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn wait(&self, until: impl Fn(&TestState) -> bool) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |state| !until(state)).unwrap());
    }

    fn stalled(&self) -> usize {
        self.0.0.lock().unwrap().stalled.len()
    }
}

type Stuck = fn(&[Vec<u32>]) -> bool;

/// Returns the first token of each sequence; a batch that is `stuck` waits for the end of the test.
struct Sticky {
    name: &'static str,
    stuck: Stuck,
    stage: Stage,
}

impl DeviceWorker for Sticky {
    type Input = Vec<u32>;
    type Output = u32;

    fn name(&self) -> &str {
        self.name
    }

    fn run(&self, inputs: &[Vec<u32>]) -> polylance_backend::Result<Vec<u32>> {
        let thread = thread::current().id();
        if (self.stuck)(inputs) {
            self.stage.change(|state| state.stalled.push(thread));
            self.stage.wait(|state| state.over);
            return Ok(vec![LATE; inputs.len()]);
        }
        self.stage.change(|state| state.computed.push(thread));
        Ok(inputs.iter().map(|tokens| tokens[0]).collect())
    }

    fn respawn(&self) -> polylance_backend::Result<Self> {
        Ok(Self { stage: self.stage.clone(), ..*self })
    }
}

/// Releases the stalled threads, however the test ends.
struct ReleaseOnDrop(Stage);

impl Drop for ReleaseOnDrop {
    fn drop(&mut self) {
        self.0.change(|state| state.over = true);
    }
}

fn bad(inputs: &[Vec<u32>]) -> bool {
    inputs.iter().any(|tokens| tokens[0] >= STUCK)
}

fn devices(workers: &[(&'static str, Stuck)]) -> (Devices<Vec<u32>, u32>, Stage, ReleaseOnDrop) {
    devices_with(STALL, workers)
}

fn devices_with(stall: Duration, workers: &[(&'static str, Stuck)]) -> (Devices<Vec<u32>, u32>, Stage, ReleaseOnDrop) {
    let stage = Stage::default();
    let worker = |&(name, stuck): &(_, _)| Sticky { name, stuck, stage: stage.clone() };
    let devices = Devices::start(workers.iter().map(worker).collect(), 64, Some(stall)).unwrap();
    let over = ReleaseOnDrop(stage.clone());
    (devices, stage, over)
}

fn sequences(tokens: impl IntoIterator<Item = u32>) -> Vec<Vec<u32>> {
    tokens.into_iter().map(|token| vec![token]).collect()
}

/// The result of each input: a refused call is retried in halves, as callers do.
fn run_or_bisect(devices: &Devices<Vec<u32>, u32>, inputs: &[Vec<u32>]) -> Vec<Result<u32, String>> {
    match block_on(devices.run(inputs.to_vec())) {
        Ok(outputs) => outputs.into_iter().map(Ok).collect(),
        Err(BackendError::Input(why)) if inputs.len() == 1 => vec![Err(why)],
        Err(BackendError::Input(_)) => {
            let (first, second) = inputs.split_at(inputs.len() / 2);
            [run_or_bisect(devices, first), run_or_bisect(devices, second)].concat()
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn stalled_input_costs_two_threads_and_the_others_are_computed() {
    let (devices, stage, _over) = devices(&[("sticky", bad)]);
    let inputs = sequences((0..40).chain([STUCK]).chain(40..60));
    for _ in 0..2 {
        let results = run_or_bisect(&devices, &inputs);
        for (input, result) in inputs.iter().zip(results) {
            match result {
                Ok(token) => assert_eq!(token, input[0]),
                Err(why) => {
                    assert_eq!((input[0], why.as_str()), (STUCK, "made no progress for 0.1 s on device sticky"));
                }
            }
        }
    }
    assert_eq!(stage.stalled(), 2, "a known stalled input is not tried again");
}

#[test]
fn stalled_first_input_is_refused() {
    let (devices, _stage, _over) = devices(&[("sticky", bad)]);
    let found = run_or_bisect(&devices, &sequences([STUCK, 1, 2]));
    assert!(matches!(found[..], [Err(_), Ok(1), Ok(2)]), "{found:?}");
}

#[test]
fn detached_thread_neither_replies_late_nor_takes_more_work() {
    let (devices, stage, over) = devices(&[("sticky", bad)]);
    assert!(block_on(devices.run(sequences([1, STUCK]))).is_err());
    drop(over);
    for _ in 0..100 {
        assert_eq!(block_on(devices.run(sequences([7, 8, 9]))).unwrap(), [7, 8, 9]);
    }
    let state = stage.0.0.lock().unwrap();
    assert_eq!(state.stalled.len(), 2);
    // The second thread computed the first input before it stalled on the second.
    assert!(state.computed[1..].iter().all(|thread| !state.stalled.contains(thread)));
}

#[test]
fn batch_too_large_for_the_time_limit_makes_later_batches_smaller() {
    let (devices, stage, _over) = devices(&[("slow", |inputs| inputs.len() > 30)]);
    for _ in 0..3 {
        assert_eq!(block_on(devices.run(sequences(0..60))).unwrap(), (0..60).collect::<Vec<_>>());
    }
    assert_eq!(stage.stalled(), 1);
}

#[test]
fn search_for_a_stalled_input_ends_when_the_caller_is_gone() {
    // Long enough to drop the call.
    let (devices, stage, _over) = devices_with(10 * STALL, &[("sticky", bad)]);
    let mut call = Box::pin(devices.run(sequences([STUCK, 1, 2])));
    assert!(futures::FutureExt::now_or_never(&mut call).is_none());
    stage.wait(|state| !state.stalled.is_empty());
    drop(call);
    assert_eq!(block_on(devices.run(sequences([5]))).unwrap(), [5]);
    assert_eq!(stage.stalled(), 1);
    assert_eq!(devices.load().tokens(), 0);
}

#[test]
fn other_devices_take_the_work_of_a_stalled_one() {
    let (devices, _stage, _over) = devices(&[("down", |_| true), ("well", bad)]);
    assert_eq!(block_on(devices.run(sequences(0..500))).unwrap(), (0..500).collect::<Vec<_>>());
}

#[test]
fn last_stalled_device_ends_the_run_with_its_name() {
    let (devices, stage, _over) = devices(&[("down", |_| true)]);
    for _ in 0..2 {
        let error = block_on(devices.run(sequences(0..10))).unwrap_err();
        assert_eq!(error.to_string(), "device down failed: made no progress for 0.1 s");
    }
    assert_eq!(stage.stalled(), MAX_RESTARTS + 1);
}

#[test]
fn device_with_too_many_detached_threads_is_given_up() {
    let (devices, stage, _over) = devices(&[("sticky", bad)]);
    assert_eq!(block_on(devices.run(sequences([1]))).unwrap(), [1]);
    for number in 0..MAX_DETACHED_THREADS as u32 / 2 {
        let error = block_on(devices.run(sequences([STUCK + number]))).unwrap_err();
        assert!(matches!(error, BackendError::Input(_)), "{error}");
    }
    let error = block_on(devices.run(sequences([STUCK + 1000]))).unwrap_err();
    assert!(matches!(error, BackendError::Device { .. }), "{error}");
    assert_eq!(stage.stalled(), MAX_DETACHED_THREADS + 1);
}

/// Panics once when it computes, and once when it is respawned.
struct Clumsy(Arc<Mutex<Vec<&'static str>>>);

impl Clumsy {
    fn panic_once(&self, what: &'static str) {
        let mut panicked = self.0.lock().unwrap();
        if !panicked.contains(&what) {
            panicked.push(what);
            drop(panicked);
            panic!("it panicked: {what}");
        }
    }
}

impl DeviceWorker for Clumsy {
    type Input = Vec<u32>;
    type Output = u32;

    fn name(&self) -> &'static str {
        "clumsy"
    }

    fn run(&self, inputs: &[Vec<u32>]) -> polylance_backend::Result<Vec<u32>> {
        self.panic_once("run");
        Ok(inputs.iter().map(|tokens| tokens[0]).collect())
    }

    fn respawn(&self) -> polylance_backend::Result<Self> {
        self.panic_once("respawn");
        Ok(Self(Arc::clone(&self.0)))
    }
}

#[test]
fn thread_that_panics_while_it_makes_its_worker_is_replaced() {
    let devices = Devices::start(vec![Clumsy(Arc::default())], 64, None).unwrap();
    assert_eq!(run_or_bisect(&devices, &sequences([1, 2, 3])), [Ok(1), Ok(2), Ok(3)]);
}

/// Which of a device's calls return a device error, counted from 0 over all its workers.
type Fails = fn(usize) -> bool;

/// Returns the first token of each sequence, unless the device fails.
struct Failing {
    name: &'static str,
    fails: Fails,
    calls: Arc<AtomicUsize>,
}

impl DeviceWorker for Failing {
    type Input = Vec<u32>;
    type Output = u32;

    fn name(&self) -> &str {
        self.name
    }

    fn run(&self, inputs: &[Vec<u32>]) -> polylance_backend::Result<Vec<u32>> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if (self.fails)(call) {
            return Err(BackendError::Device {
                device: self.name.to_owned(),
                message: "uncorrectable error".to_owned(),
            });
        }
        if bad(inputs) {
            return Err(BackendError::Input("it is bad".to_owned()));
        }
        Ok(inputs.iter().map(|tokens| tokens[0]).collect())
    }

    fn respawn(&self) -> polylance_backend::Result<Self> {
        Ok(Self { calls: Arc::clone(&self.calls), ..*self })
    }
}

/// Devices that fail as given, and the number of calls of each.
fn failing(devices: &[(&'static str, Fails)]) -> (Devices<Vec<u32>, u32>, Vec<Arc<AtomicUsize>>) {
    let calls: Vec<Arc<AtomicUsize>> = devices.iter().map(|_| Arc::default()).collect();
    let worker = |(&(name, fails), calls): (&(_, _), &Arc<_>)| Failing { name, fails, calls: Arc::clone(calls) };
    let workers = devices.iter().zip(&calls).map(worker).collect();
    (Devices::start(workers, 16, None).unwrap(), calls)
}

const ALWAYS: Fails = |_| true;
const TWICE: Fails = |call| call < 2;
const FROM_THE_FIFTH: Fails = |call| call >= 4;
const NOW_AND_THEN: Fails = |call| call % 7 == 5;
const NEVER: Fails = |_| false;

#[test]
fn no_row_is_lost_or_doubled_when_one_of_several_devices_fails() {
    let inputs = sequences(0..500);
    for fails in [ALWAYS, TWICE, FROM_THE_FIFTH, NOW_AND_THEN] {
        for devices in [
            vec![("failing", fails), ("well", NEVER)],
            vec![("well", NEVER), ("failing", fails), ("another", NEVER)],
            // As the lanes of one GPU.
            vec![("failing", fails), ("failing", fails), ("well", NEVER)],
        ] {
            let (devices, _) = failing(&devices);
            for _ in 0..3 {
                assert_eq!(block_on(devices.run(inputs.clone())).unwrap(), (0..500).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn single_device_with_transient_errors_computes_everything() {
    for fails in [TWICE, NOW_AND_THEN] {
        let (devices, _) = failing(&[("failing", fails)]);
        assert_eq!(block_on(devices.run(sequences(0..500))).unwrap(), (0..500).collect::<Vec<_>>());
    }
}

#[test]
fn single_device_with_persistent_errors_ends_the_run_with_its_message() {
    for (fails, well) in [(ALWAYS, 0), (FROM_THE_FIFTH, 4)] {
        let (devices, calls) = failing(&[("down", fails)]);
        for _ in 0..2 {
            let error = block_on(devices.run(sequences(0..500))).unwrap_err();
            assert_eq!(error.to_string(), "device down failed: uncorrectable error");
        }
        assert_eq!(calls[0].load(Ordering::SeqCst), well + MAX_RESTARTS + 1);
    }
}

#[test]
fn single_input_of_a_broken_device_is_not_refused() {
    let (devices, _) = failing(&[("down", ALWAYS)]);
    let error = block_on(devices.run(sequences([1]))).unwrap_err();
    assert!(matches!(error, BackendError::Device { .. }), "{error}");
}

#[test]
fn input_error_is_not_a_device_failure() {
    let (devices, calls) = failing(&[("well", NEVER)]);
    for _ in 0..10 * MAX_RESTARTS {
        let error = block_on(devices.run(sequences([STUCK]))).unwrap_err();
        assert_eq!(error.to_string(), "input refused: it is bad");
    }
    assert_eq!(calls[0].load(Ordering::SeqCst), 10 * MAX_RESTARTS, "one attempt per call");
}

#[test]
fn only_the_input_that_breaks_a_working_device_is_refused() {
    /// Fails with a bad input, like a kernel that writes out of bounds.
    struct Fragile;

    impl DeviceWorker for Fragile {
        type Input = Vec<u32>;
        type Output = u32;

        fn name(&self) -> &'static str {
            "fragile"
        }

        fn run(&self, inputs: &[Vec<u32>]) -> polylance_backend::Result<Vec<u32>> {
            if bad(inputs) {
                return Err(BackendError::Device {
                    device: "fragile".to_owned(),
                    message: "illegal address".to_owned(),
                });
            }
            Ok(inputs.iter().map(|tokens| tokens[0]).collect())
        }

        fn respawn(&self) -> polylance_backend::Result<Self> {
            Ok(Self)
        }
    }

    let devices = Devices::start(vec![Fragile, Fragile], 16, None).unwrap();
    let inputs = sequences((0..20).chain([STUCK]).chain(20..40));
    for (input, found) in inputs.iter().zip(run_or_bisect(&devices, &inputs)) {
        match found {
            Ok(token) => assert_eq!(token, input[0]),
            Err(why) => {
                assert_eq!((input[0], why.as_str()), (STUCK, "device fragile failed each time: illegal address"));
            }
        }
    }
}
