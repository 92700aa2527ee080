//! Runs futures for Python, which blocks until they end.

use std::{
    error::Error,
    future::Future,
    pin::pin,
    process,
    sync::OnceLock,
    time::{Duration, Instant},
};

use polylance_engine::{ShutdownSignal, UsageError, damage_behind};
use pyo3::{exceptions::PyRuntimeError, prelude::*};
use tokio::{runtime::Runtime, task::block_in_place};

use crate::{error::raise, progress::Callback};

/// Time between two runs of Python's signal handlers while Rust works: only they receive Ctrl-C.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// The threads of all calls, started by the first. A process that was forked after that has no threads: it gets an
/// error instead of a call that never ends.
fn runtime() -> PyResult<&'static Runtime> {
    static RUNTIME: OnceLock<Result<(u32, Runtime), String>> = OnceLock::new();
    let started = RUNTIME.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.map(|runtime| (process::id(), runtime)).map_err(|error| error.to_string())
    });
    let (process, runtime) =
        started.as_ref().map_err(|error| PyRuntimeError::new_err(format!("cannot start threads: {error}")))?;
    if *process != process::id() {
        let error =
            UsageError::new("polylance was used before this process was forked, and its threads were not copied");
        return Err(raise(
            error.with_hint("start workers with multiprocessing.get_context(\"spawn\"), or use polylance only in them"),
        ));
    }
    Ok(runtime)
}

/// The exception that ends a call: of a signal handler, such as Ctrl-C, or of the progress function.
fn exception(progress: &Callback) -> Option<PyErr> {
    // A handler may call polylance, which blocks on the same runtime.
    let check = || block_in_place(|| Python::attach(|py| py.check_signals().err()));
    progress.take_error().or_else(check)
}

/// Runs a future to its end without the interpreter's lock. A signal whose handler raises drops it.
pub(crate) fn wait<T, E>(py: Python<'_>, future: impl Future<Output = Result<T, E>> + Send) -> PyResult<T>
where
    T: Send,
    E: Error + Send + Sync + 'static,
{
    wait_with_progress(py, &Callback::default(), future)
}

/// As [`wait`]. An exception of the progress function drops the future, too.
pub(crate) fn wait_with_progress<T, E>(
    py: Python<'_>,
    progress: &Callback,
    future: impl Future<Output = Result<T, E>> + Send,
) -> PyResult<T>
where
    T: Send,
    E: Error + Send + Sync + 'static,
{
    run(py, None, progress, future)
}

/// As [`wait`], for a job that can be shut down: after the first exception of a signal handler or of the progress
/// function, the job finishes and commits the batches in progress within `grace`, then commits without finishing them
/// within another. A second exception drops it. The first exception is raised in any case.
pub(crate) fn wait_for_job<T, E>(
    py: Python<'_>,
    shutdown: &ShutdownSignal,
    grace: Duration,
    progress: &Callback,
    future: impl Future<Output = Result<T, E>> + Send,
) -> PyResult<T>
where
    T: Send,
    E: Error + Send + Sync + 'static,
{
    run(py, Some((shutdown, grace)), progress, future)
}

/// Runs a future until it ends or an exception drops it: without a shutdown, the first one does.
fn run<T, E>(
    py: Python<'_>,
    shutdown: Option<(&ShutdownSignal, Duration)>,
    progress: &Callback,
    future: impl Future<Output = Result<T, E>> + Send,
) -> PyResult<T>
where
    T: Send,
    E: Error + Send + Sync + 'static,
{
    let runtime = runtime()?;
    let ended = py.detach(|| {
        runtime.block_on(async {
            let mut future = pin!(future);
            let mut stopped: Option<(PyErr, Instant)> = None;
            loop {
                tokio::select! {
                    done = &mut future => {
                        let raised = stopped.map(|(first, _)| first).or_else(|| progress.take_error());
                        return raised.map_or(Ok(done), Err);
                    }
                    () = tokio::time::sleep(SIGNAL_INTERVAL) => {}
                }
                let raised = exception(progress);
                let Some((signal, grace)) = shutdown else {
                    match raised {
                        Some(raised) => return Err(raised),
                        None => continue,
                    }
                };
                stopped = match (stopped, raised) {
                    (None, None) => None,
                    (None, Some(first)) => {
                        signal.request();
                        Some((first, Instant::now()))
                    }
                    (Some(_), Some(second)) => return Err(second),
                    (Some((first, since)), None) => {
                        if since.elapsed() > grace {
                            signal.force();
                        }
                        if since.elapsed() > 2 * grace {
                            return Err(first);
                        }
                        Some((first, since))
                    }
                };
            }
        })
    })?;
    ended.map_err(|error| raise_with_damage(py, runtime, error))
}

/// The exception for an error, or for the damage of the table's newest version, if that is why it cannot be opened.
fn raise_with_damage<E: Error + Send + Sync + 'static>(py: Python<'_>, runtime: &Runtime, error: E) -> PyErr {
    match py.detach(|| runtime.block_on(damage_behind(&error))) {
        Some(damage) => raise(damage),
        None => raise(error),
    }
}
