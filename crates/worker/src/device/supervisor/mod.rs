//! Handles the failures of a device: it returns an error, its thread panics or makes no progress, or it has too little
//! memory for a batch.

use std::{io, sync::Arc, thread::JoinHandle, time::Duration};

use polylance_backend::BackendError;

use super::{
    batch_slice::BatchSlice,
    queues::Job,
    stalled_inputs::StalledInputs,
    worker::{DeviceWorker, TokenCount},
    worker_thread::{RecvError, Reply, WorkerThread},
};

/// Maximum number of new threads in a row without a computed batch in between. After that the device is at fault, not
/// its inputs.
const MAX_RESTARTS: usize = 3;

/// Maximum number of detached threads of a device that have not exited: each keeps a batch, and perhaps a core.
const MAX_DETACHED_THREADS: usize = 8;

/// Maximum number of inputs of a stalled batch that are logged, and of first tokens of each.
const MAX_LOGGED_INPUTS: usize = 64;
const MAX_LOGGED_TOKENS: usize = 8;

/// Gives a device its batches and remembers their outcome. It runs no library code on its own thread, so nothing blocks
/// it for longer than the time limit.
pub(super) struct Supervisor<W: DeviceWorker> {
    /// The worker that the others are respawned from.
    first_worker: Arc<W>,
    thread: Option<WorkerThread<W>>,
    /// The time limit of a slice.
    stall: Option<Duration>,
    detached_threads: Vec<JoinHandle<()>>,
    /// Tokens that may be computed at once.
    max_tokens: usize,
    /// The most tokens that were computed at once.
    largest_ok_tokens: usize,
    /// New threads since a slice was computed.
    restarts: usize,
    /// An input that was computed before: a device that no longer can is broken.
    known_good_input: Option<W::Input>,
}

/// An error that ends a job, or the work of a device.
pub(super) enum Fatal {
    /// The job's result; the device takes the next job.
    Job(BackendError),
    /// The device cannot be used any more.
    Device(BackendError),
}

/// Why a slice has no outputs.
enum Failure {
    /// It took too long.
    Stalled,
    Fatal(Fatal),
}

impl From<Fatal> for Failure {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

/// The outcome of one attempt to compute a slice.
enum Attempt<O> {
    Done(Vec<O>),
    /// The device works, and refuses these inputs.
    Refused(BackendError),
    /// The device returned a device error with this message. Another worker replaces it.
    DeviceError(String),
    /// The thread panicked with this message. Another one replaces it.
    Panicked(String),
    Stalled,
}

impl<O> Attempt<O> {
    /// Whether the device failed in a way that a new worker may repair.
    fn is_device_failure(&self) -> bool {
        matches!(self, Self::DeviceError(_) | Self::Panicked(_))
    }
}

impl<W: DeviceWorker> Supervisor<W> {
    pub(super) fn start(worker: W, stall: Option<Duration>) -> io::Result<Self> {
        let first_worker = Arc::new(worker);
        let worker = Arc::clone(&first_worker);
        let thread = Some(WorkerThread::start(first_worker.name(), move || Ok(worker))?);
        Ok(Self {
            first_worker,
            thread,
            stall,
            detached_threads: Vec::new(),
            max_tokens: usize::MAX,
            largest_ok_tokens: 0,
            restarts: 0,
            known_good_input: None,
        })
    }

    /// Ends the worker's thread, which is idle.
    pub(super) fn join(self) {
        self.thread.map(WorkerThread::join);
    }

    /// Computes a job. If it stalls as a whole, its inputs are tried one by one, so that the one that stalls is found
    /// at the cost of one more detached thread; halving would detach one at each step.
    pub(super) fn run_job(
        &mut self,
        job: &Job<W::Input, W::Output>,
        stalled_inputs: &StalledInputs<W::Input>,
    ) -> Result<Vec<W::Output>, Fatal> {
        stalled_inputs.check(&job.inputs).map_err(Fatal::Job)?;
        let whole = BatchSlice::whole(Arc::clone(&job.inputs));
        match self.run_slice(&whole) {
            Ok(outputs) => return Ok(outputs),
            Err(Failure::Fatal(fatal)) => return Err(fatal),
            Err(Failure::Stalled) => {}
        }
        let mut outputs = Vec::with_capacity(job.inputs.len());
        for (single, rest) in whole.singles() {
            if job.reply.is_closed() {
                return Err(Fatal::Job(BackendError::Closed));
            }
            match self.run_slice(&single) {
                Ok(output) => outputs.extend(output),
                Err(Failure::Fatal(fatal)) => return Err(fatal),
                Err(Failure::Stalled) => {
                    self.probe_device(&rest)?;
                    let message = format!("{} on device {}", self.stall_message(), self.device());
                    single.inputs().iter().for_each(|input| stalled_inputs.add(input.clone(), message.clone()));
                    return Err(Fatal::Job(BackendError::Input(message)));
                }
            }
        }
        // Each input alone was fast enough, so the batch was too large.
        if job.inputs.len() > 1 {
            self.max_tokens = self.max_tokens.min(whole.token_count()) / 2;
            self.largest_ok_tokens = self.largest_ok_tokens.min(self.max_tokens);
            tracing::warn!(
                device = self.device(),
                max_tokens = self.max_tokens,
                "each input of the stalled batch succeeded alone: batches become smaller"
            );
        }
        Ok(outputs)
    }

    /// Computes a slice: in halves if it is too large for the device, again if the device fails. A slice with which
    /// the device fails three times, while it computes something else in between, is itself at fault.
    fn run_slice(&mut self, slice: &BatchSlice<W::Input>) -> Result<Vec<W::Output>, Failure> {
        let (inputs, tokens) = (slice.inputs().len(), slice.token_count());
        if inputs > 1 && tokens > self.max_tokens {
            return self.run_halves(slice);
        }
        let mut attempt = self.attempt(slice)?;
        if attempt.is_device_failure() {
            attempt = self.attempt(slice)?;
        }
        // A panic over a single input before anything was computed proves nothing. A device error does.
        let is_conclusive = inputs > 1 || self.known_good_input.is_some() || matches!(attempt, Attempt::DeviceError(_));
        if attempt.is_device_failure() && is_conclusive {
            self.probe_device(slice)?;
            attempt = self.attempt(slice)?;
        }
        match attempt {
            Attempt::Done(outputs) => Ok(outputs),
            Attempt::Refused(BackendError::OutOfMemory { device }) if inputs > 1 => {
                tracing::warn!(device, tokens, "out of memory: batches become half as large");
                // Memory that others use for a while must not make batches small for good.
                self.max_tokens = self.largest_ok_tokens.max(tokens / 2);
                self.run_halves(slice)
            }
            Attempt::Refused(BackendError::OutOfMemory { device }) => {
                let message = format!("does not fit into the memory of {device}: {tokens} tokens");
                Err(Fatal::Job(BackendError::Input(message)).into())
            }
            Attempt::Refused(error) => Err(Fatal::Job(error).into()),
            Attempt::DeviceError(message) => {
                let message = format!("device {} failed each time: {message}", self.device());
                Err(Fatal::Job(BackendError::Input(message)).into())
            }
            Attempt::Panicked(message) => {
                let message = format!("device {} panicked: {message}", self.device());
                Err(Fatal::Job(BackendError::Input(message)).into())
            }
            Attempt::Stalled => Err(Failure::Stalled),
        }
    }

    fn run_halves(&mut self, slice: &BatchSlice<W::Input>) -> Result<Vec<W::Output>, Failure> {
        let [first, second] = slice.halves();
        let mut outputs = self.run_slice(&first)?;
        outputs.extend(self.run_slice(&second)?);
        Ok(outputs)
    }

    /// Tests whether the device still computes an input that it computed before: if so, the failing inputs are at
    /// fault. A device that has computed nothing so far is tested with the halves of `others`.
    fn probe_device(&mut self, others: &BatchSlice<W::Input>) -> Result<(), Fatal> {
        if let Some(input) = self.known_good_input.clone() {
            let known_good = BatchSlice::whole(Arc::from([input]));
            let failed =
                |attempt: Attempt<W::Output>| attempt.is_device_failure() || matches!(attempt, Attempt::Stalled);
            while failed(self.attempt(&known_good)?) {}
        } else {
            for half in others.halves() {
                if !half.inputs().is_empty() {
                    self.attempt(&half)?;
                }
            }
        }
        Ok(())
    }

    /// Tries to compute a slice once, on a new thread if the last one failed.
    fn attempt(&mut self, slice: &BatchSlice<W::Input>) -> Result<Attempt<W::Output>, Fatal> {
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => self.respawn()?,
        };
        match thread.submit(slice.clone(), self.stall) {
            Ok(Reply::Computed(Err(BackendError::Device { message, .. }))) => {
                // The thread is idle and ends at once. A new one may make the device usable again.
                thread.join();
                tracing::warn!(device = self.device(), message, "the device failed and is restarted");
                self.record_failure(&message)?;
                Ok(Attempt::DeviceError(message))
            }
            Ok(Reply::Computed(result)) => {
                self.thread = Some(thread);
                Ok(result.map_or_else(Attempt::Refused, |outputs| self.record_success(slice, outputs)))
            }
            Ok(Reply::NoWorker(error)) => Err(Fatal::Device(error)),
            Err(RecvError::Disconnected) => {
                let message = thread.join().unwrap_or_else(|| "its thread ended".to_owned());
                tracing::warn!(device = self.device(), message, "the device panicked and is restarted");
                self.record_failure(&message)?;
                Ok(Attempt::Panicked(message))
            }
            Err(RecvError::Timeout) => {
                self.detached_threads.retain(|thread| !thread.is_finished());
                self.detached_threads.push(thread.detach());
                self.log_stalled_batch(slice);
                self.record_failure(&self.stall_message())?;
                Ok(Attempt::Stalled)
            }
        }
    }

    fn record_success(&mut self, slice: &BatchSlice<W::Input>, outputs: Vec<W::Output>) -> Attempt<W::Output> {
        self.restarts = 0;
        self.largest_ok_tokens = self.largest_ok_tokens.max(slice.token_count());
        if self.known_good_input.is_none() {
            self.known_good_input = slice.inputs().first().cloned();
        }
        Attempt::Done(outputs)
    }

    /// Counts a failure; an error once there were too many.
    fn record_failure(&mut self, message: &str) -> Result<(), Fatal> {
        if self.restarts == MAX_RESTARTS || self.detached_threads.len() > MAX_DETACHED_THREADS {
            return Err(Fatal::Device(self.device_error(message.to_owned())));
        }
        self.restarts += 1;
        Ok(())
    }

    fn respawn(&self) -> Result<WorkerThread<W>, Fatal> {
        let first_worker = Arc::clone(&self.first_worker);
        WorkerThread::start(self.device(), move || first_worker.respawn().map(Arc::new)).map_err(|error| {
            let message = format!("a thread could not be started: {error}");
            Fatal::Device(self.device_error(message))
        })
    }

    fn device(&self) -> &str {
        self.first_worker.name()
    }

    fn device_error(&self, message: String) -> BackendError {
        BackendError::Device { device: self.device().to_owned(), message }
    }

    fn stall_message(&self) -> String {
        format!("made no progress for {} s", self.stall.unwrap_or_default().as_secs_f64())
    }

    /// Logs the batch so that it can be reproduced: lengths and first tokens, no text.
    fn log_stalled_batch(&self, slice: &BatchSlice<W::Input>) {
        let logged = slice.inputs().iter().take(MAX_LOGGED_INPUTS).map(TokenCount::input_ids);
        let (lengths, first): (Vec<usize>, Vec<&[u32]>) =
            logged.map(|tokens| (tokens.len(), &tokens[..tokens.len().min(MAX_LOGGED_TOKENS)])).unzip();
        tracing::warn!(
            device = self.device(),
            seconds = self.stall.unwrap_or_default().as_secs_f64(),
            inputs = slice.inputs().len(),
            tokens = slice.token_count(),
            ?lengths,
            first_tokens = ?first,
            detached_threads = self.detached_threads.len(),
            "no progress: the thread is detached and replaced"
        );
    }
}

#[cfg(test)]
mod tests;
