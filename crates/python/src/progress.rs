//! Progress of a job, reported to a function of Python's.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use polylance_engine::{Observer, SourceProgress, Stage};
use pyo3::prelude::*;
use tokio::task::block_in_place;

/// A function that receives the stage, the part that is done, the whole (bytes of the source, or rows), and the rows
/// read.
#[derive(Default)]
pub(crate) struct Callback {
    function: Option<Py<PyAny>>,
    error: Mutex<Option<PyErr>>,
    has_raised: AtomicBool,
}

impl Callback {
    pub(crate) fn new(function: Option<Py<PyAny>>) -> Self {
        Self { function, ..Self::default() }
    }

    /// Calls the function. Its exception is kept for [`Callback::take_error`], which ends the job; after that it is not
    /// called again.
    pub(crate) fn call(&self, stage: &str, done: u64, total: u64, rows: u64) {
        let Some(function) = self.function.as_ref().filter(|_| !self.has_raised.load(Ordering::Relaxed)) else {
            return;
        };
        // The function may call polylance, which blocks on the same runtime.
        let called = block_in_place(|| Python::attach(|py| function.call1(py, (stage, done, total, rows)).map(drop)));
        if let Err(error) = called {
            self.has_raised.store(true, Ordering::Relaxed);
            *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    /// The exception that the function has raised, the first time that this is called.
    pub(crate) fn take_error(&self) -> Option<PyErr> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The function as the observer of a run.
pub(crate) struct CallbackObserver<'c>(pub(crate) &'c Callback);

impl Observer for CallbackObserver<'_> {
    fn stage(&mut self, stage: Stage) {
        if stage == Stage::Indexing {
            self.0.call("index", 0, 0, 0);
        }
    }

    fn progress(&mut self, progress: &SourceProgress) {
        self.0.call("embed", progress.bytes_read, progress.bytes_total, progress.rows_read);
    }
}
