//! The files that a URI names, within the memory that their listing may take.

use globset::GlobMatcher;

use crate::{error::SourceError, source::file::SourceFile};

/// Which files a URI names, missing ones included.
#[derive(Debug, Clone, Default)]
pub(crate) enum Scope {
    /// The one file.
    #[default]
    One,
    /// All files whose address has this prefix.
    Below(String),
    /// All files whose address has this prefix, and whose rest matches.
    Matching(String, GlobMatcher),
}

/// The files that a URI names.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<SourceFile>,
    pub(super) scope: Scope,
    /// Notes about files that were skipped.
    pub(super) notes: Vec<String>,
}

/// The memory that a listing may take.
#[derive(Debug)]
pub(super) struct ListingBudget {
    bytes_left: u64,
    bytes: u64,
    files: usize,
}

impl ListingBudget {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes_left: bytes, bytes, files: 0 }
    }

    /// Reserves the memory of a file; false when there is not enough.
    pub(super) fn reserve(&mut self, file: &SourceFile) -> bool {
        let bytes = file.bytes();
        let fits = bytes <= self.bytes_left;
        if fits {
            (self.bytes_left, self.files) = (self.bytes_left - bytes, self.files + 1);
        }
        fits
    }

    pub(super) fn error(&self, uri: &str) -> SourceError {
        SourceError::Listing { uri: uri.to_owned(), files: self.files, memory: self.bytes }
    }
}
