//! Progress of a job, told to a function of Python's.

use polylance_engine::{Observer, SourceProgress, Stage};
use pyo3::prelude::*;

/// A function that gets the stage, what is done and what there is in all: bytes of the source, or rows.
pub(crate) struct Callback(Option<Py<PyAny>>);

impl Callback {
    pub(crate) fn new(function: Option<Py<PyAny>>) -> Self {
        Self(function)
    }

    /// A function that raises ends no job: its exception is printed, as one in a destructor is.
    pub(crate) fn call(&self, stage: &str, done: u64, total: u64, documents: u64) {
        let Some(function) = &self.0 else { return };
        Python::attach(|py| {
            if let Err(error) = function.call1(py, (stage, done, total, documents)) {
                error.write_unraisable(py, None);
            }
        });
    }
}

impl Observer for Callback {
    fn stage(&mut self, stage: Stage) {
        if stage == Stage::Indexing {
            self.call("index", 0, 0, 0);
        }
    }

    fn progress(&mut self, progress: &SourceProgress) {
        self.call("embed", progress.bytes_read, progress.bytes_total, progress.rows_read);
    }
}
