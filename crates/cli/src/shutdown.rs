//! Shutdown on Ctrl-C or SIGTERM: the first signal stops the command, the second one the process.
//!
//! A stopped run reads no more, finishes the batches in progress, commits them and ends, within its grace period; a
//! server answers its open requests. Any other command is dropped where it is: what it has committed stays, and the
//! next run skips what the table has.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use datafusion::common::runtime::SpawnedTask;

use polylance_engine::ShutdownSignal;

use crate::{
    exit::ExitStatus,
    output::{Printer, counted},
};

/// What a stopped run does until it ends.
pub(crate) const FINISH_AND_COMMIT: &str = "batches in progress are finished and committed";
/// How long a dropped command may take to end: the thread that drops it may be in the middle of a computation.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// How the running command is shut down. A command without a plan is dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShutdownController(Arc<Mutex<Option<ShutdownPlan>>>);

/// An orderly shutdown. It takes at most twice the grace period: once to finish what is in progress, once to commit it.
#[derive(Debug, Clone)]
pub(crate) struct ShutdownPlan {
    pub(crate) signal: ShutdownSignal,
    pub(crate) grace: Duration,
    /// What the command does meanwhile, for the user.
    pub(crate) description: &'static str,
}

impl ShutdownController {
    /// From now on the command is shut down by this plan.
    pub(crate) fn set(&self, plan: ShutdownPlan) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
    }

    /// From now on the command is dropped again.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn plan(&self) -> Option<ShutdownPlan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shuts the command down by its plan; `None` when it has none, or takes longer than the plan allows.
    pub(crate) async fn shut_down<T>(&self, command: impl Future<Output = T>) -> Option<T> {
        let ShutdownPlan { signal, grace, description } = self.plan()?;
        signal.request();
        let seconds = counted(grace.as_secs(), "second");
        Printer::new().message(format!("stopping: {description}, within {seconds}; interrupt again to end at once"));
        let mut command = std::pin::pin!(command);
        if let Ok(ended) = tokio::time::timeout(grace, command.as_mut()).await {
            return Some(ended);
        }
        signal.force();
        tokio::time::timeout(grace, command).await.ok()
    }
}

/// The user stopped the command.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted {
    /// Whether the same command continues where this one ended.
    pub(crate) resumable: bool,
}

/// Resolves at the first Ctrl-C or SIGTERM. After that the next signal ends the process. A command without a shutdown
/// plan also ends it after [`DROP_TIMEOUT`], because it may be computing on the very thread that drops it.
pub(crate) fn requested(controller: ShutdownController) -> impl Future<Output = ()> {
    let signalled = SpawnedTask::spawn(async {
        signal().await;
        std::thread::spawn(move || exit_at_next_signal(&controller));
    });
    async {
        if signalled.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn exit_at_next_signal(controller: &ShutdownController) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        if controller.plan().is_some() {
            signal().await;
        } else if tokio::time::timeout(DROP_TIMEOUT, signal()).await.is_err() {
            Printer::new().message("interrupted");
        }
    });
    #[expect(clippy::exit, reason = "the user interrupted, and the command does not end by itself")]
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

/// If no handler can be installed, the system's default stays in place and this never resolves.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
