//! Runs futures for Python, which blocks until they end.

use std::{
    future::Future,
    pin::pin,
    sync::OnceLock,
    time::{Duration, Instant},
};

use polylance_engine::ShutdownSignal;
use pyo3::{exceptions::PyRuntimeError, prelude::*};
use tokio::runtime::Runtime;

/// Time between two runs of Python's signal handlers while Rust works: only they receive Ctrl-C.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// The threads of all calls, started by the first.
fn runtime() -> PyResult<&'static Runtime> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let started = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())
    });
    started.as_ref().map_err(|error| PyRuntimeError::new_err(format!("threads cannot be started: {error}")))
}

/// Runs Python's signal handlers. The error is the exception of one of them.
fn check_signals() -> PyResult<()> {
    Python::attach(|py| -> PyResult<()> { py.check_signals() })
}

/// Runs a future to its end without the interpreter's lock. A signal whose handler raises, such as Ctrl-C, drops it.
pub(crate) fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = T> + Send) -> PyResult<T> {
    let runtime = runtime()?;
    py.detach(|| {
        runtime.block_on(async {
            let mut future = pin!(future);
            loop {
                tokio::select! {
                    done = &mut future => return Ok(done),
                    () = tokio::time::sleep(SIGNAL_INTERVAL) => check_signals()?,
                }
            }
        })
    })
}

/// As [`wait`], for a job that can be shut down: after the first signal it finishes and commits the batches in progress
/// within `grace`, then commits without finishing them within another; a second signal drops it. The signal's exception
/// is raised in any case.
pub(crate) fn wait_for_job<T: Send>(
    py: Python<'_>,
    shutdown: &ShutdownSignal,
    grace: Duration,
    future: impl Future<Output = T> + Send,
) -> PyResult<T> {
    let runtime = runtime()?;
    py.detach(|| {
        runtime.block_on(async {
            let mut future = pin!(future);
            let mut interrupted: Option<(PyErr, Instant)> = None;
            loop {
                tokio::select! {
                    done = &mut future => return interrupted.map_or(Ok(done), |(signal, _)| Err(signal)),
                    () = tokio::time::sleep(SIGNAL_INTERVAL) => {}
                }
                let signal = check_signals().err();
                interrupted = match (interrupted, signal) {
                    (None, None) => None,
                    (None, Some(signal)) => {
                        shutdown.request();
                        Some((signal, Instant::now()))
                    }
                    (Some(_), Some(again)) => return Err(again),
                    (Some((signal, since)), None) => {
                        if since.elapsed() > grace {
                            shutdown.force();
                        }
                        if since.elapsed() > 2 * grace {
                            return Err(signal);
                        }
                        Some((signal, since))
                    }
                };
            }
        })
    })
}
