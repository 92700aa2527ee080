//! Ctrl-C, and what a scheduler sends: the first stops the command, the second the process.
//!
//! A run that is stopped reads no more, finishes the batches in work, commits and ends, within its grace. Any other
//! command ends where it is. Either way the same command continues from there: the next run skips what the table has.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    exit::ExitStatus,
    job::Stop,
    printer::{Printer, counted},
};

/// How the command in work is stopped, when it can do better than to be dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stopping(Arc<Mutex<Option<(Stop, Duration)>>>);

impl Stopping {
    /// From now on the command is stopped so, in two graces at most: the first to finish what is in work, the second to
    /// commit it.
    pub(crate) fn set(&self, stop: Stop, grace: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((stop, grace));
    }

    /// From now on the command is dropped again.
    pub(crate) fn unset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits for a command that was interrupted, as long as it may take; `None` when it took longer.
    pub(crate) async fn wait<T>(&self, command: impl Future<Output = T>) -> Option<T> {
        let (stop, grace) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        stop.begin();
        let seconds = counted(grace.as_secs(), "second");
        let note =
            format!("stopping: what is in work is finished and committed, in {seconds} at most; again to end at once");
        Printer::new().message(note);
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

/// Ends when the user presses Ctrl-C or the process is told to terminate. From then on the next one ends the process.
pub(crate) async fn requested() {
    signal().await;
    std::thread::spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(signal());
        #[expect(clippy::exit, reason = "the user asked twice")]
        std::process::exit(i32::from(ExitStatus::Interrupted as u8));
    });
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
