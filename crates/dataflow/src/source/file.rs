//! One file of a source, as the listing shows it.

use std::{fs::Metadata, path::Path as FilePath};

use chrono::{DateTime, Utc};
use object_store::path::Path;

use super::uri::{FILE, STDIN_NAME};

/// One file of a source. The listing of a source is in memory once, and shared.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    /// Its address, as the quarantine names it.
    pub(crate) uri: String,
    /// Its path in the store; unused for a file on this machine, whose address is its path.
    pub(crate) path: Path,
    /// Size in bytes, as stored.
    pub(crate) size: u64,
    /// The store's other metadata about its content; `None` when the content cannot change.
    pub(crate) state: Option<FileState>,
    /// Why it cannot be read, if the listing already shows that.
    pub(crate) unreadable: Option<String>,
}

/// The metadata by which a change of a file shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileState {
    pub(crate) modified: Option<DateTime<Utc>>,
    pub(crate) e_tag: Option<String>,
    pub(crate) version: Option<String>,
}

impl FileState {
    /// An entity tag that identifies each byte of the content, which a weak one does not.
    pub(crate) fn strong_tag(&self) -> Option<&str> {
        self.e_tag.as_deref().filter(|tag| !tag.starts_with("W/"))
    }

    /// The state of a file on this machine: its times, its size and its place on the disk.
    pub(crate) fn of_local(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().map(DateTime::<Utc>::from);
        let nanos = modified.and_then(|time| time.timestamp_nanos_opt()).unwrap_or_default();
        let e_tag = format!("{:x}-{nanos:x}-{:x}", inode(metadata), metadata.len());
        Self { modified, e_tag: Some(e_tag), version: None }
    }
}

impl SourceFile {
    /// A file that exists and cannot be read: it becomes a row of the quarantine.
    pub(super) fn unreadable(uri: String, message: String) -> Self {
        Self { uri, path: Path::default(), size: 0, state: None, unreadable: Some(message) }
    }

    /// The bytes that it takes in memory.
    pub(super) fn bytes(&self) -> u64 {
        let tags = self.state.iter().flat_map(|state| [&state.e_tag, &state.version]).flatten().map(String::len);
        let texts = self.uri.len() + self.path.as_ref().len() + tags.sum::<usize>();
        (size_of::<Self>() + texts + self.unreadable.as_ref().map_or(0, String::len)) as u64
    }

    /// Whether the file is reached over a network.
    pub(crate) fn is_remote(&self) -> bool {
        self.uri.contains("://") && !self.uri.starts_with(FILE)
    }

    /// Whether this is standard input, whose errors end the run: nobody can repair it in place.
    pub(crate) fn is_stdin(&self) -> bool {
        self.uri == STDIN_NAME
    }

    /// The path of a file on this machine.
    pub(crate) fn local_path(&self) -> &FilePath {
        FilePath::new(self.uri.strip_prefix(FILE).unwrap_or(&self.uri))
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}
