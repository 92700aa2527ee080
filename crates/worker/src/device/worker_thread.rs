//! The thread that computes for a device, and may have to be left behind.
//!
//! It is reached through two channels and nothing else. A thread that makes no progress cannot be ended; letting go of
//! the channels puts it out of reach: it can neither answer later nor take more work, and ends when it comes to itself.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use polylance_backend::{BackendError, Result};

use crate::{device::DeviceWorker, error::panic_message, part::Part};

/// A thread with a worker.
pub(crate) struct Computing<W: DeviceWorker> {
    work: Sender<Part<W::Input>>,
    answers: Receiver<Answer<W::Output>>,
    thread: JoinHandle<()>,
}

/// What the thread says of a part.
pub(crate) enum Answer<O> {
    /// The worker's own answer.
    Computed(Result<Vec<O>>),
    /// There is no worker.
    NoWorker(BackendError),
}

/// Why there is no answer.
pub(crate) enum Silence {
    /// It has not come in time.
    Late,
    /// The thread has ended: it panicked.
    Ended,
}

impl<W: DeviceWorker> Computing<W> {
    /// Starts the thread. The worker is made there: whatever a library does, it does it where it is watched.
    pub(crate) fn start(device: &str, make: impl FnOnce() -> Result<Arc<W>> + Send + 'static) -> io::Result<Self> {
        let (work, parts) = channel::<Part<W::Input>>();
        let (answer, answers) = channel();
        let serve = move || {
            let worker = make();
            for part in parts {
                let said = match &worker {
                    Ok(worker) => Answer::Computed(worker.run(part.inputs())),
                    Err(error) => Answer::NoWorker(error.clone()),
                };
                if answer.send(said).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name(format!("device {device}")).spawn(serve)?;
        Ok(Self { work, answers, thread })
    }

    /// Gives it a part and waits for the answer, for ever without a limit.
    pub(crate) fn ask(
        &self,
        part: Part<W::Input>,
        limit: Option<Duration>,
    ) -> std::result::Result<Answer<W::Output>, Silence> {
        self.work.send(part).map_err(|_| Silence::Ended)?;
        let answer = match limit {
            Some(limit) => self.answers.recv_timeout(limit),
            None => self.answers.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        answer.map_err(|error| match error {
            RecvTimeoutError::Timeout => Silence::Late,
            RecvTimeoutError::Disconnected => Silence::Ended,
        })
    }

    /// Lets go of the thread, wherever it is.
    pub(crate) fn leave(self) -> JoinHandle<()> {
        self.thread
    }

    /// Waits for the end of a thread that has nothing to do, or has panicked: then what was said.
    pub(crate) fn end(self) -> Option<String> {
        let Self { work, answers, thread } = self;
        drop((work, answers));
        thread.join().err().map(|panic| panic_message(panic.as_ref()))
    }
}
