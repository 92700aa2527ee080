//! The files that a URI names, within the memory that their listing may take.

use globset::GlobMatcher;

use crate::{error::SourceError, source::file::SourceFile};

/// Which files a URI would name if they were there.
#[derive(Debug, Clone, Default)]
pub(crate) enum Scope {
    /// The one that it names.
    #[default]
    One,
    /// All whose address begins so.
    Below(String),
    /// All whose address begins so, and whose rest matches.
    Matching(String, GlobMatcher),
}

/// The files that a URI names.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<SourceFile>,
    pub(super) scope: Scope,
    /// What was passed over.
    pub(super) notes: Vec<String>,
}

/// Room for a listing in memory.
#[derive(Debug)]
pub(super) struct Room {
    left: u64,
    memory: u64,
    files: usize,
}

impl Room {
    pub(super) fn new(memory: u64) -> Self {
        Self { left: memory, memory, files: 0 }
    }

    /// Takes the room of a file; false when there is none.
    pub(super) fn takes(&mut self, file: &SourceFile) -> bool {
        let bytes = file.bytes();
        let fits = bytes <= self.left;
        if fits {
            (self.left, self.files) = (self.left - bytes, self.files + 1);
        }
        fits
    }

    pub(super) fn error(&self, uri: &str) -> SourceError {
        SourceError::Listing { uri: uri.to_owned(), files: self.files, memory: self.memory }
    }
}
