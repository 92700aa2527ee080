//! All devices: batches go to the one with the least to do, results come back in input order.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use futures::future::try_join_all;
use polylance_backend::{BackendError, Load, Result};
use tokio::sync::{Semaphore, oneshot};

use crate::{
    PoolError,
    batcher::batches,
    device::{self, DeviceWorker, Shared},
    queues::{Ids, Job, Queues},
    refused::Refused,
};

/// Batches that may wait at each device beside the one in work.
const QUEUED_BATCHES: usize = 2;

/// How long a pool that is closed waits for the batches in work, which nobody asks for any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// The devices, their queues and the bound of all queues together.
#[derive(Debug)]
pub(crate) struct Devices<I: Ids, O> {
    /// Each device once, however many workers it has.
    names: Vec<String>,
    workers: usize,
    shared: Arc<Shared<I, O>>,
    threads: Vec<JoinHandle<()>>,
    batch_tokens: usize,
    /// Ids that may be queued or in work: `tokio`'s semaphore needs no runtime.
    room: Arc<Semaphore>,
    capacity: u32,
}

impl<I: Ids, O> Devices<I, O> {
    /// Starts the threads of each worker. A batch that takes longer than `stall` makes no progress.
    pub(crate) fn start<W>(
        workers: Vec<W>,
        batch_tokens: usize,
        stall: Option<Duration>,
    ) -> std::result::Result<Self, PoolError>
    where
        W: DeviceWorker<Input = I, Output = O>,
    {
        let batch_tokens = batch_tokens.max(1);
        let capacity = batch_tokens.saturating_mul(workers.len() * (QUEUED_BATCHES + 1)).min(Semaphore::MAX_PERMITS);
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
        let mut names: Vec<String> = Vec::new();
        for worker in &workers {
            if !names.iter().any(|name| name == worker.name()) {
                names.push(worker.name().to_owned());
            }
        }
        let mut devices = Self {
            names,
            workers: workers.len(),
            shared: Arc::new(Shared { queues: Queues::new(workers.len()), refused: Refused::new() }),
            threads: Vec::with_capacity(workers.len()),
            batch_tokens,
            room: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
        };
        for (number, worker) in workers.into_iter().enumerate() {
            devices.threads.push(device::start(worker, Arc::clone(&devices.shared), number, stall)?);
        }
        Ok(devices)
    }

    /// The devices' names, as configured.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Ids that keep all workers busy once.
    pub(crate) fn window_tokens(&self) -> usize {
        self.workers.saturating_mul(self.batch_tokens)
    }

    /// What waits and what is in work.
    pub(crate) fn load(&self) -> Load {
        Load { capacity_tokens: self.capacity as usize, ..self.shared.queues.load() }
    }

    /// An output an input, in input order.
    pub(crate) async fn run(&self, inputs: Vec<I>) -> Result<Vec<O>> {
        let Shared { queues, refused } = &*self.shared;
        refused.check(&inputs)?;
        let lengths: Vec<usize> = inputs.iter().map(Ids::ids).collect();
        let mut inputs = inputs.into_iter();
        let mut answers = Vec::new();
        for batch in batches(&lengths, self.batch_tokens, self.workers) {
            let ids: usize = lengths[batch.clone()].iter().sum();
            // One batch may be larger than all the room there is; it then waits until it is alone.
            let permits = u32::try_from(ids).unwrap_or(u32::MAX).min(self.capacity);
            let permit = Arc::clone(&self.room).acquire_many_owned(permits).await.map_err(|_| BackendError::Closed)?;
            let (reply, answer) = oneshot::channel();
            let inputs = inputs.by_ref().take(batch.len()).collect();
            queues.push(Job { inputs, reply, permit: Some(permit) })?;
            answers.push(async move { answer.await.unwrap_or_else(|_| Err(queues.failure())) });
        }
        Ok(try_join_all(answers).await?.into_iter().flatten().collect())
    }
}

impl<I: Ids, O> Drop for Devices<I, O> {
    fn drop(&mut self) {
        self.shared.queues.close();
        // A thread that makes no progress may never end, and has nobody to answer.
        if !self.shared.queues.wait_for_all(PATIENCE) {
            tracing::warn!("a device is still at work: its threads are left behind");
            return;
        }
        for thread in self.threads.drain(..) {
            // The worker's panics were caught and told; a thread that is gone has nothing to add.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;
    use futures::executor::block_on;

    /// Answers each sequence with its first id; fails as its first id says.
    struct Echo {
        name: String,
        most: usize,
    }

    const PANIC: u32 = 1_000_001;

    impl DeviceWorker for Echo {
        type Input = Vec<u32>;
        type Output = u32;

        fn name(&self) -> &str {
            &self.name
        }

        fn run(&self, inputs: &[Vec<u32>]) -> Result<Vec<u32>> {
            assert!(!inputs.iter().any(|ids| ids.contains(&PANIC)), "the library panicked");
            if inputs.iter().map(Vec::len).sum::<usize>() > self.most {
                return Err(BackendError::OutOfMemory { device: self.name.clone() });
            }
            Ok(inputs.iter().map(|ids| ids[0]).collect())
        }

        fn another(&self) -> Result<Self> {
            Ok(Self { name: self.name.clone(), most: self.most })
        }
    }

    fn devices(count: usize, batch_tokens: usize, most: usize) -> Devices<Vec<u32>, u32> {
        let workers = (0..count).map(|number| Echo { name: format!("echo:{number}"), most }).collect();
        Devices::start(workers, batch_tokens, None).unwrap()
    }

    fn inputs() -> Vec<Vec<u32>> {
        (0..500).map(|n| vec![n; n as usize % 37 + 1]).collect()
    }

    /// So short that no batch has one alone: a first panic over a lone input says nothing about the device.
    fn short_inputs() -> Vec<Vec<u32>> {
        (0..500).map(|n| vec![n; n as usize % 9 + 1]).collect()
    }

    fn firsts() -> Vec<u32> {
        (0..500).collect()
    }

    #[test]
    fn results_are_in_input_order_with_any_number_of_devices() {
        for count in [1, 2, 5] {
            assert_eq!(block_on(devices(count, 64, usize::MAX).run(inputs())).unwrap(), firsts());
        }
    }

    #[test]
    fn a_batch_that_does_not_fit_is_split() {
        assert_eq!(block_on(devices(2, 400, 40).run(inputs())).unwrap(), firsts());
        let too_long = block_on(devices(1, 400, 10).run(vec![vec![7; 11]])).unwrap_err();
        assert!(matches!(&too_long, BackendError::Input(why) if why.ends_with("of echo:0: 11 ids")), "{too_long}");
    }

    #[test]
    fn inputs_that_bring_the_device_down_are_refused_and_the_device_lives_on() {
        let devices = devices(1, 64, usize::MAX);
        assert_eq!(block_on(devices.run(vec![vec![5]])).unwrap(), [5]);
        for _ in 0..10 {
            let error = block_on(devices.run(vec![vec![PANIC], vec![PANIC]])).unwrap_err();
            let refused = matches!(&error, BackendError::Input(why) if why.contains("the library panicked"));
            assert!(refused, "{error}");
        }
        assert_eq!(block_on(devices.run(vec![vec![6]])).unwrap(), [6]);
    }

    #[test]
    fn the_first_batch_of_a_device_may_hold_an_input_that_brings_it_down() {
        let devices = devices(1, 64, usize::MAX);
        let error = block_on(devices.run(vec![vec![PANIC], vec![5]])).unwrap_err();
        assert!(matches!(error, BackendError::Input(_)), "{error}");
        assert_eq!(block_on(devices.run(vec![vec![5]])).unwrap(), [5]);
    }

    /// Panics always, or only the first time.
    struct Broken {
        name: &'static str,
        heals: bool,
        down: bool,
    }

    impl DeviceWorker for Broken {
        type Input = Vec<u32>;
        type Output = u32;

        fn name(&self) -> &str {
            self.name
        }

        fn run(&self, inputs: &[Vec<u32>]) -> Result<Vec<u32>> {
            assert!(!self.down, "the device fell off the bus");
            Ok(inputs.iter().map(|ids| ids[0]).collect())
        }

        fn another(&self) -> Result<Self> {
            Ok(Self { down: !self.heals, ..*self })
        }
    }

    #[test]
    fn a_restart_hides_a_panic_that_does_not_come_again() {
        let healing = Broken { name: "healing", heals: true, down: true };
        let devices = Devices::start(vec![healing], 64, None).unwrap();
        assert_eq!(block_on(devices.run(inputs())).unwrap(), firsts());
    }

    #[test]
    fn others_take_the_work_of_a_device_that_is_given_up() {
        let down = Broken { name: "down", heals: false, down: true };
        let well = Broken { name: "well", heals: true, down: false };
        let devices = Devices::start(vec![down, well], 64, None).unwrap();
        assert_eq!(block_on(devices.run(short_inputs())).unwrap(), firsts());
    }

    #[test]
    fn the_last_device_that_is_given_up_ends_the_run_with_its_name() {
        let down = ["one", "two"].map(|name| Broken { name, heals: false, down: true });
        let devices = Devices::start(Vec::from(down), 64, None).unwrap();
        for _ in 0..2 {
            let error = block_on(devices.run(short_inputs())).unwrap_err();
            let named = matches!(&error, BackendError::Device { message, .. } if message.contains("fell off the bus"));
            assert!(named, "{error}");
        }
    }

    #[test]
    fn an_input_larger_than_all_queues_goes_through() {
        assert_eq!(block_on(devices(1, 8, usize::MAX).run(vec![vec![9; 1000]])).unwrap(), [9]);
    }

    #[test]
    fn a_dropped_call_gives_its_room_back() {
        let devices = devices(1, 16, usize::MAX);
        for _ in 0..100 {
            drop(futures::FutureExt::now_or_never(devices.run(inputs())));
        }
        assert_eq!(block_on(devices.run(inputs())).unwrap(), firsts());
    }

    /// A device that computes nothing until the other has computed all the rest.
    struct Gate {
        name: &'static str,
        done: Arc<(Mutex<usize>, Condvar)>,
    }

    impl DeviceWorker for Gate {
        type Input = Vec<u32>;
        type Output = u32;

        fn name(&self) -> &str {
            self.name
        }

        fn run(&self, inputs: &[Vec<u32>]) -> Result<Vec<u32>> {
            let (done, changed) = &*self.done;
            let mut done = done.lock().unwrap();
            *done += inputs.len();
            changed.notify_all();
            if self.name == "slow" {
                drop(changed.wait_while(done, |done| *done < 500).unwrap());
            }
            Ok(inputs.iter().map(|ids| ids[0]).collect())
        }

        fn another(&self) -> Result<Self> {
            Ok(Self { name: self.name, done: Arc::clone(&self.done) })
        }
    }

    #[test]
    fn a_device_that_is_quicker_computes_what_waits_at_the_other() {
        let done = Arc::new((Mutex::new(0), Condvar::new()));
        let gates = ["slow", "quick"].map(|name| Gate { name, done: Arc::clone(&done) });
        let devices = Devices::start(Vec::from(gates), 64, None).unwrap();
        assert_eq!(block_on(devices.run(inputs())).unwrap(), firsts());
    }
}
