//! Ctrl-C: the first stops the command, the second the process.
//!
//! A run that is stopped drops its plan. What was committed stays in the table, the window that was open is
//! lost, and the same command continues from there: the next run skips what the table has.

use crate::exit::ExitStatus;

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
