//! How a run is watched.

use polylance_backend::Load;

use crate::SourceProgress;

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Rows are read, encoded, written.
    Embedding,
    /// The index is brought up to date.
    Indexing,
}

/// Hears how far a job is. `()` hears nothing.
pub trait Observer: Send {
    /// A stage begins.
    fn stage(&mut self, _stage: Stage) {}
    /// Some rows further, several times a second.
    fn progress(&mut self, _progress: &SourceProgress) {}
    /// What the devices have to do, each time before [`Observer::progress`].
    fn load(&mut self, _load: &Load) {}
    /// A commit has made this many documents safe since the run began.
    fn committed(&mut self, _documents: u64) {}
}

impl Observer for () {}
