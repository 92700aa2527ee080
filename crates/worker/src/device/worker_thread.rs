//! The thread that runs a worker, and may have to be detached.
//!
//! It is reached through two channels only. A thread that makes no progress cannot be killed. Dropping the channels
//! detaches it: its late reply is ignored, it gets no more work, and it exits when its batch returns.

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

use super::{batch_slice::BatchSlice, worker::DeviceWorker};
use crate::error::panic_message;

/// A thread that runs one worker.
pub(super) struct WorkerThread<W: DeviceWorker> {
    work: Sender<BatchSlice<W::Input>>,
    replies: Receiver<Reply<W::Output>>,
    thread: JoinHandle<()>,
}

/// The thread's reply to one slice.
pub(super) enum Reply<O> {
    /// The worker's result.
    Computed(Result<Vec<O>>),
    /// The worker could not be made.
    NoWorker(BackendError),
}

/// Why no reply was received.
pub(super) enum RecvError {
    /// The time limit has passed.
    Timeout,
    /// The thread has ended: it panicked.
    Disconnected,
}

impl<W: DeviceWorker> WorkerThread<W> {
    /// Starts the thread, which makes its worker itself, so that library code only ever runs on supervised threads.
    pub(super) fn start(device: &str, make: impl FnOnce() -> Result<Arc<W>> + Send + 'static) -> io::Result<Self> {
        let (work, slices) = channel::<BatchSlice<W::Input>>();
        let (reply_sender, replies) = channel();
        let serve = move || {
            let worker = make();
            for slice in slices {
                let reply = match &worker {
                    Ok(worker) => Reply::Computed(worker.run(slice.inputs())),
                    Err(error) => Reply::NoWorker(error.clone()),
                };
                if reply_sender.send(reply).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name(format!("device {device}")).spawn(serve)?;
        Ok(Self { work, replies, thread })
    }

    /// Sends a slice to the thread and waits for the reply, without end if there is no limit.
    pub(super) fn submit(
        &self,
        slice: BatchSlice<W::Input>,
        limit: Option<Duration>,
    ) -> std::result::Result<Reply<W::Output>, RecvError> {
        self.work.send(slice).map_err(|_| RecvError::Disconnected)?;
        let reply = match limit {
            Some(limit) => self.replies.recv_timeout(limit),
            None => self.replies.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        reply.map_err(|error| match error {
            RecvTimeoutError::Timeout => RecvError::Timeout,
            RecvTimeoutError::Disconnected => RecvError::Disconnected,
        })
    }

    /// Detaches the thread while it runs.
    pub(super) fn detach(self) -> JoinHandle<()> {
        self.thread
    }

    /// Waits for a thread that is idle or has panicked; returns the panic's message.
    pub(super) fn join(self) -> Option<String> {
        let Self { work, replies, thread } = self;
        drop((work, replies));
        thread.join().err().map(|panic| panic_message(panic.as_ref()))
    }
}
