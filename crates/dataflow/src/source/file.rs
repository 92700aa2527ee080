//! One file of a source, as the listing shows it.

use std::{fs::Metadata, path::Path as FilePath};

use chrono::{DateTime, Utc};
use object_store::path::Path;

use super::uri::FILE;

/// One file of a source. The listing of a source is in memory, once for all that need it.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    /// Its address, as the quarantine names it.
    pub(crate) uri: String,
    /// Its place in the store; of a file on this machine the address is the place.
    pub(crate) path: Path,
    /// Bytes as stored.
    pub(crate) size: u64,
    /// What else the store says about its content; `None` when that cannot change.
    pub(crate) state: Option<FileState>,
    /// Why it cannot be read, when the listing shows that already.
    pub(crate) unreadable: Option<String>,
}

/// By which a file is known to be the one that was read before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileState {
    pub(crate) modified: Option<DateTime<Utc>>,
    pub(crate) e_tag: Option<String>,
    pub(crate) version: Option<String>,
}

impl FileState {
    /// An entity tag that stands for each byte of the content. A weak one stands for its meaning.
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
    /// A file that is there and cannot be read: it costs a row of the quarantine.
    pub(super) fn unreadable(uri: String, message: String) -> Self {
        Self { uri, path: Path::default(), size: 0, state: None, unreadable: Some(message) }
    }

    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> u64 {
        let tags = self.state.iter().flat_map(|state| [&state.e_tag, &state.version]).flatten().map(String::len);
        let texts = self.uri.len() + self.path.as_ref().len() + tags.sum::<usize>();
        (size_of::<Self>() + texts + self.unreadable.as_ref().map_or(0, String::len)) as u64
    }

    /// Whether the file is reached over a network.
    pub(crate) fn is_remote(&self) -> bool {
        self.uri.contains("://") && !self.uri.starts_with(FILE)
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
