//! Ctrl-C, and what a scheduler sends: the first stops the command, the second the process.
//!
//! A run that is stopped reads no more, finishes the batches in work, commits and ends, within its grace; a server
//! answers the requests that it has. Any other command ends where it is: what it would have committed is not there, what
//! it has committed is, and the next run skips what the table has.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use datafusion::common::runtime::SpawnedTask;

use polylance_engine::Stop;

use crate::{
    exit::ExitStatus,
    output::{Printer, counted},
};

/// What a run does that is stopped.
pub(crate) const FINISHES: &str = "what is in work is finished and committed";
/// What a command that is dropped may still take to get there, in the middle of a computation.
const DROP: Duration = Duration::from_secs(1);

/// How the command in work is stopped, when it can do better than to be dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stopping(Arc<Mutex<Option<Way>>>);

/// Told to stop, a command has so long, twice at most.
#[derive(Debug, Clone)]
struct Way {
    stop: Stop,
    grace: Duration,
    /// What it does until then.
    does: &'static str,
}

impl Stopping {
    /// From now on the command is stopped so, in two graces at most: the first to finish what is in work, the second to
    /// commit it. `does` says what it does meanwhile.
    pub(crate) fn set(&self, stop: Stop, grace: Duration, does: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Way { stop, grace, does });
    }

    /// From now on the command is dropped again.
    pub(crate) fn unset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn way(&self) -> Option<Way> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a command that was interrupted, as long as it may take; `None` when it took longer.
    pub(crate) async fn wait<T>(&self, command: impl Future<Output = T>) -> Option<T> {
        let Way { stop, grace, does } = self.way()?;
        stop.begin();
        let seconds = counted(grace.as_secs(), "second");
        Printer::new().message(format!("stopping: {does}, in {seconds} at most; again to end at once"));
        let mut command = std::pin::pin!(command);
        if let Ok(ended) = tokio::time::timeout(grace, command.as_mut()).await {
            return Some(ended);
        }
        stop.hurry();
        tokio::time::timeout(grace, command).await.ok()
    }
}

/// The user stopped the command.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted {
    /// Whether the same command continues where this one was.
    pub(crate) resumable: bool,
}

/// Ends when the user presses Ctrl-C or the process is told to terminate. From then on the next one ends the process,
/// and so does a while in which a command that is to be dropped goes on: it may compute on the very thread that drops it.
pub(crate) fn requested(stopping: Stopping) -> impl Future<Output = ()> {
    let signalled = SpawnedTask::spawn(async {
        signal().await;
        std::thread::spawn(move || end_soon(&stopping));
    });
    async {
        if signalled.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn end_soon(stopping: &Stopping) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        if stopping.way().is_some() {
            signal().await;
        } else if tokio::time::timeout(DROP, signal()).await.is_err() {
            Printer::new().message("interrupted");
        }
    });
    #[expect(clippy::exit, reason = "the user asked, and the command does not come to an end")]
    std::process::exit(i32::from(ExitStatus::Interrupted as u8));
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};

    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                () = interrupt() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => interrupt().await,
    }
}

#[cfg(not(unix))]
async fn signal() {
    interrupt().await;
}

/// Without a handler the system's own remains, and this never ends.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
