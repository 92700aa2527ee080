//! The devices' queues: a batch goes to the device with the least to do, and an idle device steals a batch of another.
//!
//! So a device that is twice as fast computes twice as much, and none waits while there is work.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use polylance_backend::{BackendError, Load, Result};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::worker::TokenCount;

/// A batch on its way to a device: `I` is an input, `O` an output.
pub(super) struct Job<I, O> {
    /// Shared with the thread that computes them.
    pub(super) inputs: Arc<[I]>,
    pub(super) reply: oneshot::Sender<Result<Vec<O>>>,
    /// The batch's share of the queues' bound, given back when the job is dropped.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl<I: TokenCount, O> Job<I, O> {
    fn token_count(&self) -> usize {
        self.inputs.iter().map(TokenCount::token_count).sum()
    }
}

/// One queue per worker, bounded by the permits that jobs carry.
pub(super) struct Queues<I, O> {
    state: Mutex<State<I, O>>,
    changed: Condvar,
}

struct State<I, O> {
    queues: Vec<Queue<I, O>>,
    closed: bool,
    /// The error of the last device that was given up.
    failure: Option<BackendError>,
}

struct Queue<I, O> {
    jobs: VecDeque<Job<I, O>>,
    waiting_tokens: usize,
    /// Tokens that are being computed.
    running_tokens: usize,
    /// Whether the worker's thread has ended.
    dead: bool,
}

impl<I: TokenCount, O> Queues<I, O> {
    pub(super) fn new(devices: usize) -> Self {
        let empty = || Queue { jobs: VecDeque::new(), waiting_tokens: 0, running_tokens: 0, dead: false };
        let queues = std::iter::repeat_with(empty).take(devices).collect();
        Self { state: Mutex::new(State { queues, closed: false, failure: None }), changed: Condvar::new() }
    }

    /// Queues a job at the live device with the least to do.
    ///
    /// # Errors
    /// When there is none: the error of the last one, or [`BackendError::Closed`].
    pub(super) fn push(&self, job: Job<I, O>) -> Result<()> {
        let mut state = self.lock();
        if state.closed {
            return Err(state.failure.clone().unwrap_or(BackendError::Closed));
        }
        state.push(job).map_err(|_| BackendError::Closed)?;
        // Any device may take it, so all are woken.
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for a job: the first of the device's own queue, else the last of the longest. `None` once the queues are
    /// closed.
    pub(super) fn take(&self, device: usize) -> Option<Job<I, O>> {
        let mut state = self.lock();
        state.queues[device].running_tokens = 0;
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.take(device) {
                state.queues[device].running_tokens = job.token_count();
                return Some(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Marks the device's job as done.
    pub(super) fn done(&self, device: usize) {
        self.lock().queues[device].running_tokens = 0;
    }

    /// Tokens that wait, and tokens that are being computed.
    pub(super) fn load(&self) -> Load {
        let state = self.lock();
        let queued_tokens = state.queues.iter().map(|queue| queue.waiting_tokens).sum();
        let running_tokens = state.queues.iter().map(|queue| queue.running_tokens).sum();
        Load { queued_tokens, running_tokens, ..Load::default() }
    }

    /// Closes the queues: waiting jobs are dropped, which their callers notice, and no more are taken.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.close();
        self.changed.notify_all();
    }

    /// Removes a device whose thread ends. The others take its jobs; they are dropped if it was the last.
    pub(super) fn remove(&self, device: usize) {
        let mut state = self.lock();
        state.mark_dead(device);
        if state.queues.iter().all(|queue| queue.dead) {
            state.close();
        }
        self.changed.notify_all();
    }

    /// Waits until all devices' threads have ended. `false` if one still runs after `timeout`.
    pub(super) fn wait_for_all(&self, timeout: Duration) -> bool {
        let any_alive = |state: &mut State<I, O>| state.queues.iter().any(|queue| !queue.dead);
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, any_alive);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Removes a device that cannot be used any more, and gives its job to another. If there is none, `error` is the
    /// result of all jobs from now on.
    pub(super) fn give_up(&self, device: usize, job: Job<I, O>, error: BackendError) {
        let mut state = self.lock();
        state.mark_dead(device);
        let pushed = if state.closed { Err(job) } else { state.push(job) };
        if pushed.is_err() && !state.closed {
            state.failure = Some(error);
            state.close();
        }
        self.changed.notify_all();
    }

    /// The error for a caller whose job was dropped.
    pub(super) fn failure(&self) -> BackendError {
        self.lock().failure.clone().unwrap_or(BackendError::Closed)
    }

    fn lock(&self) -> MutexGuard<'_, State<I, O>> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: TokenCount, O> State<I, O> {
    /// Queues a job at the live device with the least to do; returns it if there is none.
    fn push(&mut self, job: Job<I, O>) -> std::result::Result<(), Job<I, O>> {
        let live = self.queues.iter_mut().filter(|queue| !queue.dead);
        let Some(queue) = live.min_by_key(|queue| queue.waiting_tokens + queue.running_tokens) else { return Err(job) };
        queue.waiting_tokens += job.token_count();
        queue.jobs.push_back(job);
        Ok(())
    }

    fn mark_dead(&mut self, device: usize) {
        self.queues[device].dead = true;
        self.queues[device].running_tokens = 0;
    }

    fn close(&mut self) {
        self.closed = true;
        for queue in &mut self.queues {
            queue.jobs.clear();
            queue.waiting_tokens = 0;
        }
    }

    fn take(&mut self, device: usize) -> Option<Job<I, O>> {
        if let Some(job) = self.queues[device].jobs.pop_front() {
            self.queues[device].waiting_tokens -= job.token_count();
            return Some(job);
        }
        let longest = self.queues.iter_mut().max_by_key(|queue| queue.waiting_tokens)?;
        let job = longest.jobs.pop_back()?;
        longest.waiting_tokens -= job.token_count();
        Some(job)
    }
}

impl<I: TokenCount, O> fmt::Debug for Queues<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let waiting: Vec<usize> = state.queues.iter().map(|queue| queue.waiting_tokens).collect();
        f.debug_struct("Queues").field("waiting", &waiting).field("closed", &state.closed).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: u32, tokens: usize) -> Job<Vec<u32>, f32> {
        Job { inputs: Arc::from([vec![name; tokens]]), reply: oneshot::channel().0, permit: None }
    }

    fn name(job: Option<Job<Vec<u32>, f32>>) -> u32 {
        job.unwrap().inputs[0][0]
    }

    #[test]
    fn push_picks_the_device_with_the_least_to_do() {
        let queues = Queues::new(2);
        for (number, tokens) in [10, 3, 3, 3, 3].into_iter().enumerate() {
            queues.push(job(number as u32, tokens)).unwrap();
        }
        assert_eq!([0, 1, 1, 1, 1].map(|device| name(queues.take(device))), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn idle_device_steals_the_last_job_of_another() {
        let queues = Queues::new(2);
        (0..4).for_each(|number| queues.push(job(number, 1)).unwrap());
        assert_eq!([1, 1, 1, 1].map(|device| name(queues.take(device))), [1, 3, 2, 0]);
    }

    #[test]
    fn jobs_of_a_removed_device_go_to_the_others_and_are_dropped_with_the_last() {
        let queues = Queues::new(2);
        (0..2).for_each(|number| queues.push(job(number, 1)).unwrap());
        queues.remove(0);
        queues.push(job(2, 9)).unwrap();
        assert_eq!([1, 1].map(|device| name(queues.take(device))), [1, 2]);
        let (reply, mut answer) = oneshot::channel();
        queues.push(Job { reply, ..job(3, 1) }).unwrap();
        queues.remove(1);
        assert!(answer.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        assert!(matches!(queues.push(job(4, 1)), Err(BackendError::Closed)));
        assert!(queues.take(0).is_none());
    }

    #[test]
    fn wait_for_all_returns_whether_a_device_still_runs() {
        let queues = Queues::<Vec<u32>, f32>::new(2);
        queues.remove(0);
        assert!(!queues.wait_for_all(Duration::ZERO));
        queues.remove(1);
        assert!(queues.wait_for_all(Duration::ZERO));
    }

    #[test]
    fn load_counts_waiting_and_running_tokens() {
        let queues = Queues::new(2);
        let load = |queued_tokens, running_tokens| Load { queued_tokens, running_tokens, ..Load::default() };
        for (number, tokens) in [5, 3, 4].into_iter().enumerate() {
            queues.push(job(number as u32, tokens)).unwrap();
        }
        assert_eq!(queues.load(), load(12, 0));
        drop((queues.take(0), queues.take(1)));
        assert_eq!(queues.load(), load(4, 8));
        queues.done(0);
        assert_eq!(queues.load(), load(4, 3));
        queues.remove(1);
        assert_eq!(queues.load(), load(4, 0));
        queues.close();
        assert_eq!(queues.load(), Load::default());
    }
}
