//! What a cached model consists of, and whether it still does.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use serde::{Deserialize, Serialize};

/// Files up to this size are hashed each time they are used; of a larger one, size and time are compared first.
const HASHED_BYTES: u64 = 32 << 20;

/// The files of a cached model.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The address without a password, for people who look into the cache.
    pub(super) model: String,
    /// The hash of the weights, as a table's contract has it; `None` for files that are no model.
    pub(super) weights_hash: Option<String>,
    pub(super) files: Vec<CachedFile>,
}

/// A file of a cached model.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CachedFile {
    /// Its path in the model's folder.
    name: String,
    size: u64,
    /// The time of its last change in nanoseconds.
    modified: i64,
    /// BLAKE3 of its bytes, hexadecimal.
    blake3: String,
}

impl Manifest {
    /// Reads a manifest; `None` if it is missing or damaged.
    pub(super) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Writes it to the disk.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        serde_json::to_writer_pretty(&file, self)?;
        file.sync_all()
    }

    /// Whether the files in a folder are those that were fetched.
    pub(super) fn matches(&self, folder: &Path) -> bool {
        self.files.iter().all(|file| file.matches(&folder.join(&file.name)).unwrap_or(false))
    }
}

impl CachedFile {
    /// A file that was fetched with this hash.
    pub(super) fn new(name: &str, path: &Path, blake3: String) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { name: name.to_owned(), size: metadata.len(), modified: modified(&metadata), blake3 })
    }

    fn matches(&self, path: &Path) -> io::Result<bool> {
        let metadata = fs::metadata(path)?;
        if metadata.len() != self.size {
            return Ok(false);
        }
        // A copied cache has other times.
        if self.size > HASHED_BYTES && modified(&metadata) == self.modified {
            return Ok(true);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        Ok(hasher.finalize().to_hex().as_str() == self.blake3)
    }
}

fn modified(metadata: &fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}
