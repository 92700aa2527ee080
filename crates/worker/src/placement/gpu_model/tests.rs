//! Lanes on a GPU that is lost: what each computes, how often the model is loaded, and which input is refused.

use std::{
    collections::BTreeSet,
    sync::{Barrier, mpsc},
    thread,
};

use futures::executor::block_on;

use super::*;
use crate::device::{DeviceWorker, Devices};

/// The token of an input that breaks the GPU.
const POISON: u32 = 1000;

#[derive(Debug, Default)]
struct State {
    is_lost: bool,
    /// Models that hold the GPU open.
    open: usize,
    resets: usize,
    loads: usize,
    /// Loads that will fail.
    bad_loads: usize,
    /// Whether every call fails.
    is_dead: bool,
}

/// A GPU that refuses a reset while it is open, like the driver.
#[derive(Debug, Clone, Default)]
struct FakeGpu(Arc<Mutex<State>>);

struct FakeModel {
    gpu: FakeGpu,
    /// The load that made it, counted from 1.
    number: usize,
}

impl FakeGpu {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn lose(&self) {
        self.state().is_lost = true;
    }
}

impl Drop for FakeModel {
    fn drop(&mut self) {
        self.gpu.state().open -= 1;
    }
}

impl FakeModel {
    fn compute(&self, inputs: &[Vec<u32>]) -> Result<Vec<u32>> {
        // Batches of both lanes are in flight together.
        thread::yield_now();
        let mut state = self.gpu.state();
        state.is_lost |= state.is_dead || inputs.iter().any(|tokens| tokens[0] >= POISON);
        if state.is_lost {
            return Err(BackendError::Device { device: "cuda:7".to_owned(), message: "illegal address".to_owned() });
        }
        Ok(inputs.iter().map(|tokens| tokens[0]).collect())
    }
}

impl GpuLoader for FakeGpu {
    type Model = FakeModel;

    fn device(&self) -> &'static str {
        "cuda:7"
    }

    fn load(&self) -> std::result::Result<FakeModel, LoadFailure> {
        let mut state = self.state();
        let failure = |message: &str, is_lost| LoadFailure {
            error: Box::new(PoolError::Gpu { device: "cuda:7".to_owned(), message: message.to_owned() }),
            lost: if is_lost { vec![0] } else { Vec::new() },
        };
        if state.is_lost {
            return Err(failure("it is lost", true));
        }
        if state.bad_loads > 0 {
            state.bad_loads -= 1;
            return Err(failure("out of memory", false));
        }
        state.loads += 1;
        state.open += 1;
        Ok(FakeModel { gpu: self.clone(), number: state.loads })
    }

    fn lost(&self, _: &FakeModel) -> Vec<usize> {
        if self.state().is_lost { vec![0] } else { Vec::new() }
    }

    fn reset(&self, _: usize) -> std::result::Result<(), String> {
        let mut state = self.state();
        if state.open > 0 {
            return Err(format!("it is still open {} times", state.open));
        }
        state.resets += 1;
        state.is_lost = false;
        Ok(())
    }
}

fn load(gpu: &FakeGpu, context: &Arc<RwLock<Context>>) -> Arc<GpuModel<FakeGpu>> {
    GpuModel::load(gpu.clone(), vec![Arc::clone(context)]).unwrap().0
}

/// The number of the model that the lane computes with.
fn number(lane: &Lane<FakeGpu>) -> Result<usize> {
    lane.run(|model| Ok(model.number))
}

#[test]
fn lost_gpu_is_reloaded_once_for_both_lanes() {
    let gpu = FakeGpu::default();
    let model = load(&gpu, &Arc::default());
    let lanes = [(); GPU_LANES].map(|()| Lane::new(Arc::clone(&model)));
    for lane in &lanes {
        assert_eq!(number(lane).unwrap(), 1);
    }
    gpu.lose();
    let start = Barrier::new(GPU_LANES);
    let numbers = thread::scope(|scope| {
        let started = lanes.each_ref().map(|lane| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                number(lane)
            })
        });
        started.map(|lane| lane.join().unwrap().unwrap())
    });
    assert_eq!(numbers, [2, 2]);
    let state = gpu.state();
    assert_eq!((state.resets, state.loads, state.open), (1, 2, 1));
}

#[test]
fn other_models_of_a_lost_gpu_are_dropped_and_reloaded_on_use() {
    let (gpu, context) = (FakeGpu::default(), Arc::default());
    let [first, second] = [(); 2].map(|()| Lane::new(load(&gpu, &context)));
    gpu.lose();
    assert_eq!(number(&first).unwrap(), 3);
    assert_eq!(gpu.state().open, 1, "the second model no longer holds the GPU open");
    assert_eq!(number(&second).unwrap(), 4);
    assert_eq!(number(&first).unwrap(), 3, "the second did not destroy the context again");
    assert_eq!(gpu.state().resets, 1);
}

#[test]
fn reset_waits_for_the_passes_in_flight() {
    let gpu = FakeGpu::default();
    let model = load(&gpu, &Arc::default());
    let [slow, other] = [(); 2].map(|()| Lane::new(Arc::clone(&model)));
    let (entered, wait) = (Barrier::new(2), Barrier::new(2));
    let (done, order) = mpsc::channel();
    thread::scope(|scope| {
        let (slow_done, other_done) = (done.clone(), done.clone());
        let (entered, wait, gpu, slow, other) = (&entered, &wait, &gpu, &slow, &other);
        scope.spawn(move || {
            let computed = slow.run(|_| {
                entered.wait();
                wait.wait();
                slow_done.send("slow").unwrap();
                Ok(())
            });
            computed.unwrap();
        });
        entered.wait();
        gpu.lose();
        scope.spawn(move || {
            assert_eq!(number(other).unwrap(), 2);
            other_done.send("other").unwrap();
        });
        wait.wait();
    });
    assert_eq!(order.try_iter().collect::<Vec<_>>(), ["slow", "other"]);
}

#[test]
fn lane_computes_alone_after_a_failure_until_three_passes_succeed() {
    let (gpu, context) = (FakeGpu::default(), Arc::default());
    let lane = Lane::new(load(&gpu, &context)).respawn();
    let is_alone = || lane.run(|_| Ok(context.try_read().is_none())).unwrap();
    let failed: Result<()> = lane.run(|_| Err(BackendError::Closed));
    assert!(failed.is_err());
    assert_eq!([(); 5].map(|()| is_alone()), [true, true, true, false, false]);
}

#[test]
fn failed_reload_is_a_device_error_and_is_retried() {
    let gpu = FakeGpu::default();
    let lane = Lane::new(load(&gpu, &Arc::default()));
    gpu.lose();
    gpu.state().bad_loads = 2;
    for _ in 0..2 {
        let error = number(&lane).unwrap_err();
        assert_eq!(error.to_string(), "device cuda:7 failed: device `cuda:7`: out of memory");
    }
    assert_eq!(number(&lane).unwrap(), 2);
    assert_eq!(gpu.state().resets, 1, "the new context works");
}

#[test]
fn opening_a_model_on_a_lost_gpu_resets_it() {
    let (gpu, context) = (FakeGpu::default(), Arc::default());
    let first = Lane::new(load(&gpu, &context));
    gpu.lose();
    assert!(GpuModel::load(gpu.clone(), vec![Arc::clone(&context)]).is_err());
    let second = Lane::new(load(&gpu, &context));
    assert_eq!((number(&second).unwrap(), number(&first).unwrap()), (2, 3));
}

/// Two GPUs that a model is spread over.
#[derive(Clone, Default)]
struct FakePair([FakeGpu; 2]);

impl GpuLoader for FakePair {
    type Model = [FakeModel; 2];

    fn device(&self) -> &'static str {
        "cuda:7+cuda:8"
    }

    fn load(&self) -> std::result::Result<[FakeModel; 2], LoadFailure> {
        let Self([first, second]) = self;
        let of_second =
            |failure: LoadFailure| LoadFailure { lost: failure.lost.iter().map(|_| 1).collect(), error: failure.error };
        Ok([first.load()?, second.load().map_err(of_second)?])
    }

    fn lost(&self, _: &[FakeModel; 2]) -> Vec<usize> {
        (0..2).filter(|&gpu| self.0[gpu].state().is_lost).collect()
    }

    fn reset(&self, gpu: usize) -> std::result::Result<(), String> {
        self.0[gpu].reset(0)
    }
}

impl FakePair {
    /// How often each GPU was reset, the models that were loaded onto it, and those that hold it open.
    fn counts(&self) -> [(usize, usize, usize); 2] {
        self.0.each_ref().map(|gpu| {
            let state = gpu.state();
            (state.resets, state.loads, state.open)
        })
    }
}

/// A model on both GPUs, one on each of them alone, and the contexts.
type PairLanes = (Lane<FakePair>, [Lane<FakeGpu>; 2]);

fn pair_lanes(pair: &FakePair) -> PairLanes {
    let contexts = <[Arc<RwLock<Context>>; 2]>::default();
    let (both, _) = GpuModel::load(pair.clone(), contexts.to_vec()).unwrap();
    (Lane::new(both), [0, 1].map(|gpu| Lane::new(load(&pair.0[gpu], &contexts[gpu]))))
}

#[test]
fn only_the_lost_gpu_of_a_pair_is_reset() {
    let pair = FakePair::default();
    let (both, [first, second]) = pair_lanes(&pair);
    pair.0[1].lose();
    both.run(|_| Ok(())).unwrap();
    assert_eq!(pair.counts(), [(0, 3, 2), (1, 3, 1)]);
    assert_eq!([&first, &second].map(|lane| number(lane).unwrap()), [2, 4], "the first one was not dropped");
    assert_eq!(pair.counts(), [(0, 3, 2), (1, 4, 2)]);
}

#[test]
fn reset_for_another_model_drops_a_model_on_both_gpus() {
    let pair = FakePair::default();
    let (both, [first, second]) = pair_lanes(&pair);
    pair.0[0].lose();
    assert_eq!([&first, &second].map(|lane| number(lane).unwrap()), [3, 2]);
    assert_eq!(pair.counts(), [(1, 3, 1), (0, 2, 1)], "the pair holds none of its GPUs open");
    both.run(|_| Ok(())).unwrap();
    assert_eq!(pair.counts(), [(1, 4, 2), (0, 3, 2)]);
    pair.0.iter().for_each(FakeGpu::lose);
    both.run(|_| Ok(())).unwrap();
    assert_eq!(pair.counts(), [(2, 5, 1), (1, 4, 1)]);
}

#[test]
fn gpu_of_a_pair_is_usable_while_the_other_one_hangs() {
    let pair = FakePair::default();
    let (both, [first, _]) = pair_lanes(&pair);
    let (alone, exclusive) = (both.respawn(), first.respawn());
    let [healthy, hanging] = [0, 1].map(|gpu| &both.model.contexts[gpu]);
    let wait_for = |is_held: &dyn Fn() -> bool| {
        while !is_held() {
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        let hangs = hanging.read();
        let waits = scope.spawn(|| alone.run(|_| Ok(())));
        wait_for(&|| healthy.try_read().is_none());
        assert_eq!(number(&first).unwrap(), 2, "a pass");
        drop(hangs);
        waits.join().unwrap().unwrap();

        let hangs = hanging.write();
        let waits = scope.spawn(|| both.run(|_| Ok(())));
        wait_for(&|| healthy.try_write().is_none());
        assert_eq!(number(&exclusive).unwrap(), 2, "a pass alone");
        drop(hangs);
        waits.join().unwrap().unwrap();
    });
}

#[test]
fn lanes_of_a_pair_and_of_its_gpus_wait_for_one_another_without_deadlock() {
    let pair = FakePair::default();
    let (both, [first, second]) = pair_lanes(&pair);
    let other = both.respawn();
    // A GPU that is lost again before the model is loaded fails, but nothing ever holds one that is reset.
    let check = |result: Result<()>| {
        if let Err(error) = result {
            assert!(error.to_string().ends_with("it is lost"), "{error}");
        }
    };
    thread::scope(|scope| {
        for lane in [&both, &other] {
            scope.spawn(move || (0..300).for_each(|_| check(lane.run(|_| Ok(())))));
        }
        for lane in [&first, &second] {
            scope.spawn(move || (0..300).for_each(|_| check(lane.run(|_| Ok(())))));
        }
        for at in 0..40 {
            pair.0[at % 2].lose();
            thread::yield_now();
        }
    });
    for _ in 0..2 {
        both.run(|_| Ok(())).unwrap();
        other.run(|_| Ok(())).unwrap();
        assert!(number(&first).is_ok() && number(&second).is_ok());
    }
}

/// A worker of the fake GPU.
struct LaneWorker(Lane<FakeGpu>);

impl DeviceWorker for LaneWorker {
    type Input = Vec<u32>;
    type Output = u32;

    fn name(&self) -> &'static str {
        "cuda:7"
    }

    fn run(&self, inputs: &[Vec<u32>]) -> Result<Vec<u32>> {
        self.0.run(|model| model.compute(inputs))
    }

    fn respawn(&self) -> Result<Self> {
        Ok(Self(self.0.respawn()))
    }
}

fn devices(gpu: &FakeGpu) -> Devices<Vec<u32>, u32> {
    let model = load(gpu, &Arc::default());
    let workers = (0..GPU_LANES).map(|_| LaneWorker(Lane::new(Arc::clone(&model)))).collect();
    Devices::start(workers, 16, None).unwrap()
}

/// The inputs that are refused: a refused call is retried in halves, as callers do.
fn refused(devices: &Devices<Vec<u32>, u32>, inputs: &[Vec<u32>]) -> BTreeSet<u32> {
    match block_on(devices.run(inputs.to_vec())) {
        Ok(outputs) => {
            assert_eq!(outputs, inputs.iter().map(|tokens| tokens[0]).collect::<Vec<_>>());
            BTreeSet::new()
        }
        Err(BackendError::Input(_)) if inputs.len() == 1 => BTreeSet::from([inputs[0][0]]),
        Err(BackendError::Input(_)) => {
            let (first, second) = inputs.split_at(inputs.len() / 2);
            &refused(devices, first) | &refused(devices, second)
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn lanes_are_two_workers_of_one_device() {
    let devices = devices(&FakeGpu::default());
    assert_eq!(devices.names(), ["cuda:7"]);
    assert_eq!(devices.window_tokens(), GPU_LANES * 16);
}

#[test]
fn only_the_input_that_breaks_the_gpu_is_refused_on_both_lanes() {
    let gpu = FakeGpu::default();
    let devices = devices(&gpu);
    let inputs: Vec<Vec<u32>> = (0..200).map(|id| vec![if id == 57 { POISON } else { id }]).collect();
    assert_eq!(refused(&devices, &inputs), BTreeSet::from([POISON]));
    assert!(gpu.state().resets > 0);
}

#[test]
fn permanently_lost_gpu_ends_the_run_with_its_message() {
    let gpu = FakeGpu::default();
    let devices = devices(&gpu);
    gpu.state().is_dead = true;
    let error = block_on(devices.run((0..200).map(|id| vec![id]).collect())).unwrap_err();
    assert_eq!(error.to_string(), "device cuda:7 failed: illegal address");
}
