//! Devices that return errors or make no progress, and threads that die.

use std::{
    sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, ThreadId},
};

use futures::executor::block_on;

use super::*;
use crate::devices::Devices;

const STALL: Duration = Duration::from_millis(100);
/// Ids from here on hold the device up.
const STUCK: u32 = 1000;
/// What a thread says that was held up.
const LATE: u32 = u32::MAX;

/// What the test and all workers see of each other.
#[derive(Default)]
struct Seen {
    /// Threads that were held up, and those that computed something.
    held_up: Vec<ThreadId>,
    computed: Vec<ThreadId>,
    over: bool,
}

#[derive(Clone, Default)]
struct Stage(Arc<(Mutex<Seen>, Condvar)>);

impl Stage {
    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn wait(&self, until: impl Fn(&Seen) -> bool) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |seen| !until(seen)).unwrap());
    }

    fn held_up(&self) -> usize {
        self.0.0.lock().unwrap().held_up.len()
    }
}

type Stuck = fn(&[Vec<u32>]) -> bool;

/// Answers each sequence with its first id, unless `stuck` says that it waits for the end of the test.
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
            self.stage.change(|seen| seen.held_up.push(thread));
            self.stage.wait(|seen| seen.over);
            return Ok(vec![LATE; inputs.len()]);
        }
        self.stage.change(|seen| seen.computed.push(thread));
        Ok(inputs.iter().map(|ids| ids[0]).collect())
    }

    fn another(&self) -> polylance_backend::Result<Self> {
        Ok(Self { stage: self.stage.clone(), ..*self })
    }
}

/// Ends the threads that are held up, however the test ends.
struct Over(Stage);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.change(|seen| seen.over = true);
    }
}

fn bad(inputs: &[Vec<u32>]) -> bool {
    inputs.iter().any(|ids| ids[0] >= STUCK)
}

fn devices(workers: &[(&'static str, Stuck)]) -> (Devices<Vec<u32>, u32>, Stage, Over) {
    devices_with(STALL, workers)
}

fn devices_with(stall: Duration, workers: &[(&'static str, Stuck)]) -> (Devices<Vec<u32>, u32>, Stage, Over) {
    let stage = Stage::default();
    let worker = |&(name, stuck): &(_, _)| Sticky { name, stuck, stage: stage.clone() };
    let devices = Devices::start(workers.iter().map(worker).collect(), 64, Some(stall)).unwrap();
    let over = Over(stage.clone());
    (devices, stage, over)
}

fn sequences(ids: impl IntoIterator<Item = u32>) -> Vec<Vec<u32>> {
    ids.into_iter().map(|id| vec![id]).collect()
}

/// What each input gave: a call that is refused is repeated in halves, as callers do.
fn each(devices: &Devices<Vec<u32>, u32>, inputs: &[Vec<u32>]) -> Vec<Result<u32, String>> {
    match block_on(devices.run(inputs.to_vec())) {
        Ok(outputs) => outputs.into_iter().map(Ok).collect(),
        Err(BackendError::Input(why)) if inputs.len() == 1 => vec![Err(why)],
        Err(BackendError::Input(_)) => {
            let (first, second) = inputs.split_at(inputs.len() / 2);
            [each(devices, first), each(devices, second)].concat()
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_input_without_progress_is_found_at_the_cost_of_two_threads_and_the_others_are_computed() {
    let (devices, stage, _over) = devices(&[("sticky", bad)]);
    let inputs = sequences((0..40).chain([STUCK]).chain(40..60));
    for _ in 0..2 {
        let answers = each(&devices, &inputs);
        for (input, answer) in inputs.iter().zip(answers) {
            match answer {
                Ok(id) => assert_eq!(id, input[0]),
                Err(why) => {
                    assert_eq!((input[0], why.as_str()), (STUCK, "made no progress for 0.1 s on device sticky"));
                }
            }
        }
    }
    assert_eq!(stage.held_up(), 2, "an input that was found is not tried again");
}

#[test]
fn the_first_input_of_a_device_may_be_the_one_without_progress() {
    let (devices, _stage, _over) = devices(&[("sticky", bad)]);
    let found = each(&devices, &sequences([STUCK, 1, 2]));
    assert!(matches!(found[..], [Err(_), Ok(1), Ok(2)]), "{found:?}");
}

#[test]
fn a_thread_left_behind_neither_answers_later_nor_takes_more_work() {
    let (devices, stage, over) = devices(&[("sticky", bad)]);
    assert!(block_on(devices.run(sequences([1, STUCK]))).is_err());
    drop(over);
    for _ in 0..100 {
        assert_eq!(block_on(devices.run(sequences([7, 8, 9]))).unwrap(), [7, 8, 9]);
    }
    let seen = stage.0.0.lock().unwrap();
    assert_eq!(seen.held_up.len(), 2);
    // The second thread had computed the first input before it was held up by the second.
    assert!(seen.computed[1..].iter().all(|thread| !seen.held_up.contains(thread)));
}

#[test]
fn a_batch_that_is_too_much_for_the_time_is_computed_and_the_next_are_smaller() {
    let (devices, stage, _over) = devices(&[("slow", |inputs| inputs.len() > 30)]);
    for _ in 0..3 {
        assert_eq!(block_on(devices.run(sequences(0..60))).unwrap(), (0..60).collect::<Vec<_>>());
    }
    assert_eq!(stage.held_up(), 1);
}

#[test]
fn a_search_for_a_caller_that_is_gone_is_given_up() {
    // Time enough to drop the call.
    let (devices, stage, _over) = devices_with(10 * STALL, &[("sticky", bad)]);
    let mut call = Box::pin(devices.run(sequences([STUCK, 1, 2])));
    assert!(futures::FutureExt::now_or_never(&mut call).is_none());
    stage.wait(|seen| !seen.held_up.is_empty());
    drop(call);
    assert_eq!(block_on(devices.run(sequences([5]))).unwrap(), [5]);
    assert_eq!(stage.held_up(), 1);
    assert_eq!(devices.load().tokens(), 0);
}

#[test]
fn others_take_the_work_of_a_device_without_progress() {
    let (devices, _stage, _over) = devices(&[("down", |_| true), ("well", bad)]);
    assert_eq!(block_on(devices.run(sequences(0..500))).unwrap(), (0..500).collect::<Vec<_>>());
}

#[test]
fn the_last_device_without_progress_ends_the_run_with_its_name() {
    let (devices, stage, _over) = devices(&[("down", |_| true)]);
    for _ in 0..2 {
        let error = block_on(devices.run(sequences(0..10))).unwrap_err();
        assert_eq!(error.to_string(), "device down failed: made no progress for 0.1 s");
    }
    assert_eq!(stage.held_up(), RESTARTS + 1);
}

#[test]
fn a_device_that_has_left_too_many_threads_behind_is_given_up() {
    let (devices, stage, _over) = devices(&[("sticky", bad)]);
    assert_eq!(block_on(devices.run(sequences([1]))).unwrap(), [1]);
    for number in 0..LEFT_BEHIND as u32 / 2 {
        let error = block_on(devices.run(sequences([STUCK + number]))).unwrap_err();
        assert!(matches!(error, BackendError::Input(_)), "{error}");
    }
    let error = block_on(devices.run(sequences([STUCK + 1000]))).unwrap_err();
    assert!(matches!(error, BackendError::Device { .. }), "{error}");
    assert_eq!(stage.held_up(), LEFT_BEHIND + 1);
}

/// Panics once when it computes, and once when another is made.
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
        Ok(inputs.iter().map(|ids| ids[0]).collect())
    }

    fn another(&self) -> polylance_backend::Result<Self> {
        self.panic_once("another");
        Ok(Self(Arc::clone(&self.0)))
    }
}

#[test]
fn a_thread_that_dies_where_the_worker_is_made_is_replaced() {
    let devices = Devices::start(vec![Clumsy(Arc::default())], 64, None).unwrap();
    assert_eq!(each(&devices, &sequences([1, 2, 3])), [Ok(1), Ok(2), Ok(3)]);
}

/// Which of a device's calls return an error of the device, counted from 0 over all its workers.
type Fails = fn(usize) -> bool;

/// Answers each sequence with its first id, unless the device fails.
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
        Ok(inputs.iter().map(|ids| ids[0]).collect())
    }

    fn another(&self) -> polylance_backend::Result<Self> {
        Ok(Self { calls: Arc::clone(&self.calls), ..*self })
    }
}

/// Devices by how they fail, and the calls that each gets.
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
fn no_row_is_lost_or_doubled_when_a_device_returns_errors_beside_others() {
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
fn a_device_that_returns_errors_for_a_while_computes_everything_alone() {
    for fails in [TWICE, NOW_AND_THEN] {
        let (devices, _) = failing(&[("failing", fails)]);
        assert_eq!(block_on(devices.run(sequences(0..500))).unwrap(), (0..500).collect::<Vec<_>>());
    }
}

#[test]
fn a_device_that_keeps_returning_errors_is_given_up_and_alone_ends_the_run_with_its_words() {
    for (fails, well) in [(ALWAYS, 0), (FROM_THE_FIFTH, 4)] {
        let (devices, calls) = failing(&[("down", fails)]);
        for _ in 0..2 {
            let error = block_on(devices.run(sequences(0..500))).unwrap_err();
            assert_eq!(error.to_string(), "device down failed: uncorrectable error");
        }
        assert_eq!(calls[0].load(Ordering::SeqCst), well + RESTARTS + 1);
    }
}

#[test]
fn the_only_input_of_a_broken_device_is_not_refused_for_it() {
    let (devices, _) = failing(&[("down", ALWAYS)]);
    let error = block_on(devices.run(sequences([1]))).unwrap_err();
    assert!(matches!(error, BackendError::Device { .. }), "{error}");
}

#[test]
fn an_input_error_is_no_failure_of_the_device() {
    let (devices, calls) = failing(&[("well", NEVER)]);
    for _ in 0..10 * RESTARTS {
        let error = block_on(devices.run(sequences([STUCK]))).unwrap_err();
        assert_eq!(error.to_string(), "input refused: it is bad");
    }
    assert_eq!(calls[0].load(Ordering::SeqCst), 10 * RESTARTS, "it is tried once each time");
}

#[test]
fn an_input_with_which_a_well_device_fails_each_time_is_refused_and_no_other() {
    /// Fails with a bad input, as a kernel that writes where it must not.
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
            Ok(inputs.iter().map(|ids| ids[0]).collect())
        }

        fn another(&self) -> polylance_backend::Result<Self> {
            Ok(Self)
        }
    }

    let devices = Devices::start(vec![Fragile, Fragile], 16, None).unwrap();
    let inputs = sequences((0..20).chain([STUCK]).chain(20..40));
    for (input, found) in inputs.iter().zip(each(&devices, &inputs)) {
        match found {
            Ok(id) => assert_eq!(id, input[0]),
            Err(why) => {
                assert_eq!((input[0], why.as_str()), (STUCK, "device fragile failed each time: illegal address"));
            }
        }
    }
}
