//! All devices of a pool: batches go to the one with the least to do, and results return in input order.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use futures::future::try_join_all;
use polylance_backend::{BackendError, Load, Result};
use tokio::sync::{Semaphore, oneshot};

use super::{
    batcher::batches,
    queues::{Job, Queues},
    stalled_inputs::StalledInputs,
    thread::{self, Shared},
    worker::{DeviceWorker, TokenCount},
};
use crate::error::PoolError;

/// Batches that may wait at each worker while it computes one.
const QUEUED_BATCHES: usize = 2;

/// How long a closed pool waits for the running batches, whose results are not needed any more.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The devices and their queues, which share one bound.
#[derive(Debug)]
pub(crate) struct Devices<I: TokenCount, O> {
    /// Each device once, however many workers it has.
    names: Vec<String>,
    workers: usize,
    shared: Arc<Shared<I, O>>,
    threads: Vec<JoinHandle<()>>,
    batch_tokens: usize,
    /// Permits for tokens that wait or are being computed. `tokio`'s semaphore needs no runtime.
    permits: Arc<Semaphore>,
    capacity: u32,
}

impl<I: TokenCount, O> Devices<I, O> {
    /// Starts the threads of each worker. A batch stalls if it takes longer than `stall`.
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
            shared: Arc::new(Shared { queues: Queues::new(workers.len()), stalled_inputs: StalledInputs::new() }),
            threads: Vec::with_capacity(workers.len()),
            batch_tokens,
            permits: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
        };
        for (number, worker) in workers.into_iter().enumerate() {
            devices.threads.push(thread::start(worker, Arc::clone(&devices.shared), number, stall)?);
        }
        Ok(devices)
    }

    /// The devices' names, as configured.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Tokens that keep all workers busy once.
    pub(crate) fn window_tokens(&self) -> usize {
        self.workers.saturating_mul(self.batch_tokens)
    }

    /// Tokens that wait or are being computed, and the bound of both.
    pub(crate) fn load(&self) -> Load {
        Load { capacity_tokens: self.capacity as usize, ..self.shared.queues.load() }
    }

    /// Computes one output per input, in input order.
    pub(crate) async fn run(&self, inputs: Vec<I>) -> Result<Vec<O>> {
        let Shared { queues, stalled_inputs } = &*self.shared;
        stalled_inputs.check(&inputs)?;
        let lengths: Vec<usize> = inputs.iter().map(TokenCount::token_count).collect();
        let mut inputs = inputs.into_iter();
        let mut replies = Vec::new();
        for batch in batches(&lengths, self.batch_tokens, self.workers) {
            let tokens: usize = lengths[batch.clone()].iter().sum();
            // A batch larger than the whole bound waits until it is alone.
            let permits = u32::try_from(tokens).unwrap_or(u32::MAX).min(self.capacity);
            let permit =
                Arc::clone(&self.permits).acquire_many_owned(permits).await.map_err(|_| BackendError::Closed)?;
            let (reply, received) = oneshot::channel();
            let inputs = inputs.by_ref().take(batch.len()).collect();
            queues.push(Job { inputs, reply, permit: Some(permit) })?;
            replies.push(async move { received.await.unwrap_or_else(|_| Err(queues.failure())) });
        }
        Ok(try_join_all(replies).await?.into_iter().flatten().collect())
    }
}

impl<I: TokenCount, O> Drop for Devices<I, O> {
    fn drop(&mut self) {
        self.shared.queues.close();
        // A thread that makes no progress may never end, and no caller waits for its result.
        if !self.shared.queues.wait_for_all(CLOSE_TIMEOUT) {
            tracing::warn!("a device is still computing: its threads are detached");
            return;
        }
        for thread in self.threads.drain(..) {
            // A panic of the worker was caught and reported by its supervisor.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;
    use futures::executor::block_on;

    /// Returns the first token of each sequence; panics on [`PANIC`] and runs out of memory beyond `max_tokens`.
    struct Echo {
        name: String,
        max_tokens: usize,
    }

    const PANIC: u32 = 1_000_001;

    impl DeviceWorker for Echo {
        type Input = Vec<u32>;
        type Output = u32;

        fn name(&self) -> &str {
            &self.name
        }

        fn run(&self, inputs: &[Vec<u32>]) -> Result<Vec<u32>> {
            assert!(!inputs.iter().any(|tokens| tokens.contains(&PANIC)), "the library panicked");
            if inputs.iter().map(Vec::len).sum::<usize>() > self.max_tokens {
                return Err(BackendError::OutOfMemory { device: self.name.clone() });
            }
            Ok(inputs.iter().map(|tokens| tokens[0]).collect())
        }

        fn respawn(&self) -> Result<Self> {
            Ok(Self { name: self.name.clone(), max_tokens: self.max_tokens })
        }
    }

    fn devices(count: usize, batch_tokens: usize, max_tokens: usize) -> Devices<Vec<u32>, u32> {
        let workers = (0..count).map(|number| Echo { name: format!("echo:{number}"), max_tokens }).collect();
        Devices::start(workers, batch_tokens, None).unwrap()
    }

    fn inputs() -> Vec<Vec<u32>> {
        (0..500).map(|n| vec![n; n as usize % 37 + 1]).collect()
    }

    /// So short that no batch holds a single one: a first panic over a single input proves nothing about the device.
    fn short_inputs() -> Vec<Vec<u32>> {
        (0..500).map(|n| vec![n; n as usize % 9 + 1]).collect()
    }

    fn firsts() -> Vec<u32> {
        (0..500).collect()
    }

    #[test]
    fn results_are_in_input_order_for_any_number_of_devices() {
        for count in [1, 2, 5] {
            assert_eq!(block_on(devices(count, 64, usize::MAX).run(inputs())).unwrap(), firsts());
        }
    }

    #[test]
    fn batch_out_of_memory_is_split() {
        assert_eq!(block_on(devices(2, 400, 40).run(inputs())).unwrap(), firsts());
        let too_long = block_on(devices(1, 400, 10).run(vec![vec![7; 11]])).unwrap_err();
        assert!(matches!(&too_long, BackendError::Input(why) if why.ends_with("of echo:0: 11 tokens")), "{too_long}");
    }

    #[test]
    fn inputs_that_crash_the_device_are_refused_and_the_device_survives() {
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
    fn crashing_input_in_the_first_batch_is_refused() {
        let devices = devices(1, 64, usize::MAX);
        let error = block_on(devices.run(vec![vec![PANIC], vec![5]])).unwrap_err();
        assert!(matches!(error, BackendError::Input(_)), "{error}");
        assert_eq!(block_on(devices.run(vec![vec![5]])).unwrap(), [5]);
    }

    /// Panics while it is down; its replacement works if it heals.
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
            Ok(inputs.iter().map(|tokens| tokens[0]).collect())
        }

        fn respawn(&self) -> Result<Self> {
            Ok(Self { down: !self.heals, ..*self })
        }
    }

    #[test]
    fn single_panic_is_hidden_by_a_restart() {
        let healing = Broken { name: "healing", heals: true, down: true };
        let devices = Devices::start(vec![healing], 64, None).unwrap();
        assert_eq!(block_on(devices.run(inputs())).unwrap(), firsts());
    }

    #[test]
    fn other_devices_take_the_work_of_a_broken_one() {
        let down = Broken { name: "down", heals: false, down: true };
        let well = Broken { name: "well", heals: true, down: false };
        let devices = Devices::start(vec![down, well], 64, None).unwrap();
        assert_eq!(block_on(devices.run(short_inputs())).unwrap(), firsts());
    }

    #[test]
    fn last_broken_device_ends_the_run_with_its_error() {
        let down = ["one", "two"].map(|name| Broken { name, heals: false, down: true });
        let devices = Devices::start(Vec::from(down), 64, None).unwrap();
        for _ in 0..2 {
            let error = block_on(devices.run(short_inputs())).unwrap_err();
            let named = matches!(&error, BackendError::Device { message, .. } if message.contains("fell off the bus"));
            assert!(named, "{error}");
        }
    }

    #[test]
    fn input_larger_than_all_queues_is_computed() {
        assert_eq!(block_on(devices(1, 8, usize::MAX).run(vec![vec![9; 1000]])).unwrap(), [9]);
    }

    #[test]
    fn dropped_call_releases_its_permits() {
        let devices = devices(1, 16, usize::MAX);
        for _ in 0..100 {
            drop(futures::FutureExt::now_or_never(devices.run(inputs())));
        }
        assert_eq!(block_on(devices.run(inputs())).unwrap(), firsts());
    }

    /// The device named "slow" computes nothing until the other has computed all the rest.
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
            Ok(inputs.iter().map(|tokens| tokens[0]).collect())
        }

        fn respawn(&self) -> Result<Self> {
            Ok(Self { name: self.name, done: Arc::clone(&self.done) })
        }
    }

    #[test]
    fn faster_device_steals_the_jobs_of_the_slower_one() {
        let done = Arc::new((Mutex::new(0), Condvar::new()));
        let gates = ["slow", "fast"].map(|name| Gate { name, done: Arc::clone(&done) });
        let devices = Devices::start(Vec::from(gates), 64, None).unwrap();
        assert_eq!(block_on(devices.run(inputs())).unwrap(), firsts());
    }
}
