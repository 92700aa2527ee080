//! The devices' queues: a batch goes to the device with the least to do, and a device without one takes another's.
//!
//! So a device that is twice as fast computes twice as much, and none waits while there is work.

use std::{
    collections::VecDeque,
    fmt,
    hash::Hash,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use polylance_backend::{BackendError, Load, Result};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// An input of a device: what it costs is the number of its ids.
pub trait Ids: Clone + Eq + Hash + Send + Sync + 'static {
    /// The ids.
    fn input_ids(&self) -> &[u32];

    /// Their number.
    fn ids(&self) -> usize {
        self.input_ids().len()
    }
}

impl Ids for Vec<u32> {
    fn input_ids(&self) -> &[u32] {
        self
    }
}

/// A batch on its way: `I` an input, `O` what the device makes of it.
pub(crate) struct Job<I, O> {
    /// Shared with the thread that computes them.
    pub(crate) inputs: Arc<[I]>,
    pub(crate) reply: oneshot::Sender<Result<Vec<O>>>,
    /// The batch's share of the queues' bound, given back when the job is dropped.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

impl<I: Ids, O> Job<I, O> {
    fn ids(&self) -> usize {
        self.inputs.iter().map(Ids::ids).sum()
    }
}

/// One queue a device, bounded by the permits that jobs carry.
pub(crate) struct Queues<I, O> {
    state: Mutex<State<I, O>>,
    changed: Condvar,
}

struct State<I, O> {
    queues: Vec<Queue<I, O>>,
    closed: bool,
    /// Why the last device was given up.
    failure: Option<BackendError>,
}

struct Queue<I, O> {
    jobs: VecDeque<Job<I, O>>,
    /// Ids queued.
    waiting: usize,
    /// Ids in work.
    working: usize,
    /// Whether the device's thread is gone.
    dead: bool,
}

impl<I: Ids, O> Queues<I, O> {
    pub(crate) fn new(devices: usize) -> Self {
        let empty = || Queue { jobs: VecDeque::new(), waiting: 0, working: 0, dead: false };
        let queues = std::iter::repeat_with(empty).take(devices).collect();
        Self { state: Mutex::new(State { queues, closed: false, failure: None }), changed: Condvar::new() }
    }

    /// Queues a job at the living device with the least to do.
    ///
    /// # Errors
    /// When there is none: why the last one was given up, else [`BackendError::Closed`].
    pub(crate) fn push(&self, job: Job<I, O>) -> Result<()> {
        let mut state = self.lock();
        if state.closed {
            return Err(state.failure.clone().unwrap_or(BackendError::Closed));
        }
        state.push(job).map_err(|_| BackendError::Closed)?;
        // Any device may take it, so all look.
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for a job: the device's own first one, else the last of the longest queue. `None`: the pool is closed.
    pub(crate) fn take(&self, device: usize) -> Option<Job<I, O>> {
        let mut state = self.lock();
        state.queues[device].working = 0;
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.take(device) {
                state.queues[device].working = job.ids();
                return Some(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A device's job is done.
    pub(crate) fn done(&self, device: usize) {
        self.lock().queues[device].working = 0;
    }

    /// Ids that wait and ids in work.
    pub(crate) fn load(&self) -> Load {
        let state = self.lock();
        let queued_tokens = state.queues.iter().map(|queue| queue.waiting).sum();
        let running_tokens = state.queues.iter().map(|queue| queue.working).sum();
        Load { queued_tokens, running_tokens, ..Load::default() }
    }

    /// No device takes another job, and those that wait are dropped: their callers hear of it.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.close();
        self.changed.notify_all();
    }

    /// A device's thread is gone: its jobs are left to the others, and dropped when it was the last.
    pub(crate) fn leave(&self, device: usize) {
        let mut state = self.lock();
        state.bury(device);
        if state.queues.iter().all(|queue| queue.dead) {
            state.close();
        }
        self.changed.notify_all();
    }

    /// Waits until all devices' threads are gone. `false`: one is still at work.
    pub(crate) fn wait_for_all(&self, patience: Duration) -> bool {
        let at_work = |state: &mut State<I, O>| state.queues.iter().any(|queue| !queue.dead);
        let waited = self.changed.wait_timeout_while(self.lock(), patience, at_work);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// A device that can do no more gives its job to another. When there is none the job's caller hears why.
    pub(crate) fn give_up(&self, device: usize, job: Job<I, O>, error: BackendError) {
        let mut state = self.lock();
        state.bury(device);
        let left = if state.closed { Err(job) } else { state.push(job) };
        if left.is_err() && !state.closed {
            state.failure = Some(error);
            state.close();
        }
        self.changed.notify_all();
    }

    /// What a caller is told whose job was dropped.
    pub(crate) fn failure(&self) -> BackendError {
        self.lock().failure.clone().unwrap_or(BackendError::Closed)
    }

    fn lock(&self) -> MutexGuard<'_, State<I, O>> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: Ids, O> State<I, O> {
    /// Queues a job at the living device with the least to do; gives it back when there is none.
    fn push(&mut self, job: Job<I, O>) -> std::result::Result<(), Job<I, O>> {
        let living = self.queues.iter_mut().filter(|queue| !queue.dead);
        let Some(queue) = living.min_by_key(|queue| queue.waiting + queue.working) else { return Err(job) };
        queue.waiting += job.ids();
        queue.jobs.push_back(job);
        Ok(())
    }

    fn bury(&mut self, device: usize) {
        self.queues[device].dead = true;
        self.queues[device].working = 0;
    }

    fn close(&mut self) {
        self.closed = true;
        for queue in &mut self.queues {
            queue.jobs.clear();
            queue.waiting = 0;
        }
    }

    fn take(&mut self, device: usize) -> Option<Job<I, O>> {
        if let Some(job) = self.queues[device].jobs.pop_front() {
            self.queues[device].waiting -= job.ids();
            return Some(job);
        }
        let longest = self.queues.iter_mut().max_by_key(|queue| queue.waiting)?;
        let job = longest.jobs.pop_back()?;
        longest.waiting -= job.ids();
        Some(job)
    }
}

impl<I: Ids, O> fmt::Debug for Queues<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let waiting: Vec<usize> = state.queues.iter().map(|queue| queue.waiting).collect();
        f.debug_struct("Queues").field("waiting", &waiting).field("closed", &state.closed).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: u32, ids: usize) -> Job<Vec<u32>, f32> {
        Job { inputs: Arc::from([vec![name; ids]]), reply: oneshot::channel().0, permit: None }
    }

    fn name(job: Option<Job<Vec<u32>, f32>>) -> u32 {
        job.unwrap().inputs[0][0]
    }

    #[test]
    fn a_job_goes_to_the_device_with_the_least_to_do() {
        let queues = Queues::new(2);
        for (number, ids) in [10, 3, 3, 3, 3].into_iter().enumerate() {
            queues.push(job(number as u32, ids)).unwrap();
        }
        assert_eq!([0, 1, 1, 1, 1].map(|device| name(queues.take(device))), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn an_idle_device_takes_the_last_job_of_another() {
        let queues = Queues::new(2);
        (0..4).for_each(|number| queues.push(job(number, 1)).unwrap());
        assert_eq!([1, 1, 1, 1].map(|device| name(queues.take(device))), [1, 3, 2, 0]);
    }

    #[test]
    fn jobs_of_a_device_that_is_gone_are_left_to_the_others_and_then_dropped() {
        let queues = Queues::new(2);
        (0..2).for_each(|number| queues.push(job(number, 1)).unwrap());
        queues.leave(0);
        queues.push(job(2, 9)).unwrap();
        assert_eq!([1, 1].map(|device| name(queues.take(device))), [1, 2]);
        let (reply, mut answer) = oneshot::channel();
        queues.push(Job { reply, ..job(3, 1) }).unwrap();
        queues.leave(1);
        assert!(answer.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        assert!(matches!(queues.push(job(4, 1)), Err(BackendError::Closed)));
        assert!(queues.take(0).is_none());
    }

    #[test]
    fn a_pool_that_is_closed_knows_whether_a_device_is_still_at_work() {
        let queues = Queues::<Vec<u32>, f32>::new(2);
        queues.leave(0);
        assert!(!queues.wait_for_all(Duration::ZERO));
        queues.leave(1);
        assert!(queues.wait_for_all(Duration::ZERO));
    }

    #[test]
    fn the_load_is_what_waits_and_what_is_in_work() {
        let queues = Queues::new(2);
        let load = |queued_tokens, running_tokens| Load { queued_tokens, running_tokens, ..Load::default() };
        for (number, ids) in [5, 3, 4].into_iter().enumerate() {
            queues.push(job(number as u32, ids)).unwrap();
        }
        assert_eq!(queues.load(), load(12, 0));
        drop((queues.take(0), queues.take(1)));
        assert_eq!(queues.load(), load(4, 8));
        queues.done(0);
        assert_eq!(queues.load(), load(4, 3));
        queues.leave(1);
        assert_eq!(queues.load(), load(4, 0));
        queues.close();
        assert_eq!(queues.load(), Load::default());
    }
}
