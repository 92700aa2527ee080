//! Observation of a running job.

use polylance_backend::Load;

use crate::SourceProgress;

/// The stage of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Rows are read, encoded and written.
    Embedding,
    /// The index is updated.
    Indexing,
}

/// Receives the progress of a job. `()` ignores it.
pub trait Observer: Send {
    /// A stage begins.
    fn stage(&mut self, _stage: Stage) {}
    /// The progress through the source, several times per second.
    fn progress(&mut self, _progress: &SourceProgress) {}
    /// The load of the devices, each time before [`Observer::progress`].
    fn load(&mut self, _load: &Load) {}
    /// Documents committed since the run began, after each commit.
    fn committed(&mut self, _documents: u64) {}
}

impl Observer for () {}
