//! What happens when a device fails: it returns an error, its thread panics or makes no progress, or it has too little
//! memory for a batch.

use std::{io, sync::Arc, thread::JoinHandle, time::Duration};

use polylance_backend::BackendError;

use crate::{
    computing::{Answer, Computing, Silence},
    device::DeviceWorker,
    part::Part,
    queues::{Ids, Job},
    refused::Refused,
};

/// New threads in a row without a batch computed between: the device is broken, not its inputs.
const RESTARTS: usize = 3;

/// Threads of a device that may be left behind and not have ended: each keeps a batch, and perhaps a core.
const LEFT_BEHIND: usize = 8;

/// Inputs of a batch without progress that are written down one by one, and ids of each.
const TOLD_INPUTS: usize = 64;
const TOLD_IDS: usize = 8;

/// Gives a device its work and knows what was learned of it. No library's code runs on its thread, so nothing stops it.
pub(crate) struct Supervisor<W: DeviceWorker> {
    /// The worker that others are made from.
    first: Arc<W>,
    computing: Option<Computing<W>>,
    /// How long a part may take.
    stall: Option<Duration>,
    left_behind: Vec<JoinHandle<()>>,
    /// Ids that may be computed at once.
    most: usize,
    /// Ids that once were.
    fitted: usize,
    /// New threads since a part was computed.
    restarts: usize,
    /// An input that was computed once: a device that no longer can is broken.
    known: Option<W::Input>,
}

/// Why there are no outputs.
pub(crate) enum Stop {
    /// The job is answered with an error, the device takes the next.
    Job(BackendError),
    /// The device can do no more.
    Device(BackendError),
}

/// Why a part has no outputs.
enum Failure {
    /// It took too long.
    Stalled,
    Stop(Stop),
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// What came of one try.
enum Tried<O> {
    Done(Vec<O>),
    /// The device is well, and has no outputs for these inputs.
    Failed(BackendError),
    /// The device returned an error of its own, in its words, and another worker takes its place.
    Broken(String),
    /// Its thread panicked, and another takes its place.
    Panicked(String),
    Stalled,
}

impl<O> Tried<O> {
    /// Whether the device failed in a way that a new worker may mend.
    fn is_device_failure(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Panicked(_))
    }
}

impl<W: DeviceWorker> Supervisor<W> {
    pub(crate) fn start(worker: W, stall: Option<Duration>) -> io::Result<Self> {
        let first = Arc::new(worker);
        let worker = Arc::clone(&first);
        let computing = Some(Computing::start(first.name(), move || Ok(worker))?);
        let (most, fitted, restarts, known) = (usize::MAX, 0, 0, None);
        let left_behind = Vec::new();
        Ok(Self { first, computing, stall, left_behind, most, fitted, restarts, known })
    }

    /// Ends the thread that computes, which has nothing to do.
    pub(crate) fn end(self) {
        self.computing.map(Computing::end);
    }

    /// Computes a job: an input at a time when it makes no progress as a whole, so that the one that holds it up is
    /// found with one more thread left behind. Halves would leave one behind at each step.
    pub(crate) fn answer(
        &mut self,
        job: &Job<W::Input, W::Output>,
        refused: &Refused<W::Input>,
    ) -> Result<Vec<W::Output>, Stop> {
        refused.check(&job.inputs).map_err(Stop::Job)?;
        let whole = Part::whole(Arc::clone(&job.inputs));
        match self.run(&whole) {
            Ok(outputs) => return Ok(outputs),
            Err(Failure::Stop(stop)) => return Err(stop),
            Err(Failure::Stalled) => {}
        }
        let mut outputs = Vec::with_capacity(job.inputs.len());
        for (single, behind) in whole.singles() {
            if job.reply.is_closed() {
                return Err(Stop::Job(BackendError::Closed));
            }
            match self.run(&single) {
                Ok(output) => outputs.extend(output),
                Err(Failure::Stop(stop)) => return Err(stop),
                Err(Failure::Stalled) => {
                    self.prove(&behind)?;
                    let message = format!("{} on device {}", self.no_progress(), self.first.name());
                    single.inputs().iter().for_each(|input| refused.add(input.clone(), message.clone()));
                    return Err(Stop::Job(BackendError::Input(message)));
                }
            }
        }
        // Each input alone was quick enough, so there were too many of them.
        if job.inputs.len() > 1 {
            self.most = self.most.min(whole.ids()) / 2;
            self.fitted = self.fitted.min(self.most);
            let device = self.first.name();
            tracing::warn!(device, "its inputs alone made progress: batches will have {} ids at most", self.most);
        }
        Ok(outputs)
    }

    /// Computes a part: in halves when it is too much for the device at once, again when the device fails. A part with
    /// which the device fails three times, and computes something else between, is at fault itself.
    fn run(&mut self, part: &Part<W::Input>) -> Result<Vec<W::Output>, Failure> {
        let (inputs, ids) = (part.inputs().len(), part.ids());
        if inputs > 1 && ids > self.most {
            return self.halves(part);
        }
        let mut tried = self.once(part)?;
        if tried.is_device_failure() {
            tried = self.once(part)?;
        }
        // A panic over an input that came first and alone says nothing about the device. An error of the device does.
        let is_telling = inputs > 1 || self.known.is_some() || matches!(tried, Tried::Broken(_));
        if tried.is_device_failure() && is_telling {
            self.prove(part)?;
            tried = self.once(part)?;
        }
        match tried {
            Tried::Done(outputs) => Ok(outputs),
            Tried::Failed(BackendError::OutOfMemory { device }) if inputs > 1 => {
                tracing::warn!(device, ids, "out of memory: batches will have half as many ids");
                // Memory that others hold for a while must not make batches small for good.
                self.most = self.fitted.max(ids / 2);
                self.halves(part)
            }
            Tried::Failed(BackendError::OutOfMemory { device }) => {
                let message = format!("does not fit into the memory of {device}: {ids} ids");
                Err(Stop::Job(BackendError::Input(message)).into())
            }
            Tried::Failed(error) => Err(Stop::Job(error).into()),
            Tried::Broken(message) => {
                let message = format!("device {} failed each time: {message}", self.first.name());
                Err(Stop::Job(BackendError::Input(message)).into())
            }
            Tried::Panicked(message) => {
                let message = format!("device {} panicked: {message}", self.first.name());
                Err(Stop::Job(BackendError::Input(message)).into())
            }
            Tried::Stalled => Err(Failure::Stalled),
        }
    }

    fn halves(&mut self, part: &Part<W::Input>) -> Result<Vec<W::Output>, Failure> {
        let [first, second] = part.halves();
        let mut outputs = self.run(&first)?;
        outputs.extend(self.run(&second)?);
        Ok(outputs)
    }

    /// Finds out whether the device still computes what it once did: then the inputs bring it down. A device that has
    /// computed nothing so far may prove it with `others`.
    fn prove(&mut self, others: &Part<W::Input>) -> Result<(), Stop> {
        if let Some(known) = self.known.clone() {
            let known = Part::whole(Arc::from([known]));
            while matches!(self.once(&known)?, Tried::Broken(_) | Tried::Panicked(_) | Tried::Stalled) {}
        } else {
            for other in others.halves() {
                if !other.inputs().is_empty() {
                    self.once(&other)?;
                }
            }
        }
        Ok(())
    }

    /// Tries a part, with a new thread in the place of one that failed.
    fn once(&mut self, part: &Part<W::Input>) -> Result<Tried<W::Output>, Stop> {
        let computing = match self.computing.take() {
            Some(computing) => computing,
            None => self.restart()?,
        };
        match computing.ask(part.clone(), self.stall) {
            Ok(Answer::Computed(Err(BackendError::Device { message, .. }))) => {
                // The thread has nothing to do and ends at once; another one may make the device usable again.
                computing.end();
                tracing::warn!(device = self.first.name(), message, "the device failed and is restarted");
                self.count(&message)?;
                Ok(Tried::Broken(message))
            }
            Ok(Answer::Computed(answer)) => {
                self.computing = Some(computing);
                Ok(answer.map_or_else(Tried::Failed, |outputs| self.computed(part, outputs)))
            }
            Ok(Answer::NoWorker(error)) => Err(Stop::Device(error)),
            Err(Silence::Ended) => {
                let message = computing.end().unwrap_or_else(|| "its thread ended".to_owned());
                tracing::warn!(device = self.first.name(), message, "the device panicked and is restarted");
                self.count(&message)?;
                Ok(Tried::Panicked(message))
            }
            Err(Silence::Late) => {
                self.left_behind.retain(|thread| !thread.is_finished());
                self.left_behind.push(computing.leave());
                self.tell(part);
                self.count(&self.no_progress())?;
                Ok(Tried::Stalled)
            }
        }
    }

    fn computed(&mut self, part: &Part<W::Input>, outputs: Vec<W::Output>) -> Tried<W::Output> {
        self.restarts = 0;
        self.fitted = self.fitted.max(part.ids());
        if self.known.is_none() {
            self.known = part.inputs().first().cloned();
        }
        Tried::Done(outputs)
    }

    fn restart(&self) -> Result<Computing<W>, Stop> {
        let first = Arc::clone(&self.first);
        Computing::start(self.first.name(), move || first.another().map(Arc::new)).map_err(|error| {
            let message = format!("a thread could not be started: {error}");
            Stop::Device(self.broken(message))
        })
    }

    /// Counts a failure: the device is given up when there were too many.
    fn count(&mut self, message: &str) -> Result<(), Stop> {
        if self.restarts == RESTARTS || self.left_behind.len() > LEFT_BEHIND {
            return Err(Stop::Device(self.broken(message.to_owned())));
        }
        self.restarts += 1;
        Ok(())
    }

    fn broken(&self, message: String) -> BackendError {
        BackendError::Device { device: self.first.name().to_owned(), message }
    }

    fn no_progress(&self) -> String {
        format!("made no progress for {} s", self.stall.unwrap_or_default().as_secs_f64())
    }

    /// Writes down what the device was given, so that it can be given again: lengths and first ids, and no text.
    fn tell(&self, part: &Part<W::Input>) {
        let told = part.inputs().iter().take(TOLD_INPUTS).map(Ids::input_ids);
        let (lengths, first): (Vec<usize>, Vec<&[u32]>) =
            told.map(|ids| (ids.len(), &ids[..ids.len().min(TOLD_IDS)])).unzip();
        tracing::warn!(
            device = self.first.name(),
            seconds = self.stall.unwrap_or_default().as_secs_f64(),
            inputs = part.inputs().len(),
            ids = part.ids(),
            ?lengths,
            first_ids = ?first,
            left_behind = self.left_behind.len(),
            "no progress: the thread is left behind and another takes its place"
        );
    }
}

#[cfg(test)]
mod tests;
