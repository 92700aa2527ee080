//! The bytes of a file to send, read in parts.

use std::{
    io::{self, Read},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

/// The bytes that are read at once.
const PART_BYTES: u64 = 8 << 20;
/// The number of characters of a SHA-256.
const SHA256_CHARACTERS: usize = 64;

/// The bytes of a file to send.
#[derive(Debug, Clone)]
pub enum Content {
    /// An object of a store, which is read in parts.
    Object {
        /// The store.
        store: Arc<dyn ObjectStore>,
        /// Its path.
        path: Path,
        /// Its size in bytes.
        size: u64,
    },
    /// A text in memory.
    Text(Bytes),
}

impl Content {
    /// The size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Object { size, .. } => *size,
            Self::Text(text) => text.len() as u64,
        }
    }

    pub(super) async fn read(&self, range: Range<u64>) -> object_store::Result<Bytes> {
        match self {
            _ if range.is_empty() => Ok(Bytes::new()),
            Self::Object { store, path, .. } => store.get_range(path, range).await,
            Self::Text(text) => Ok(text.slice(range.start as usize..range.end as usize)),
        }
    }

    /// The SHA-256 in hexadecimal digits.
    pub(super) async fn sha256(&self) -> object_store::Result<String> {
        self.hash(Sha256::new()).await
    }

    /// The hash of the kind that the hub's listing has for a file: SHA-256 of a large one, git's of a small one.
    pub(super) async fn hash_like(&self, found: &str) -> object_store::Result<String> {
        if found.len() == SHA256_CHARACTERS {
            return self.sha256().await;
        }
        let mut blob = Sha1::new();
        blob.update(format!("blob {}\0", self.size()).as_bytes());
        self.hash(blob).await
    }

    async fn hash(&self, mut hasher: impl Digest) -> object_store::Result<String> {
        let mut next = 0;
        while next < self.size() {
            let end = self.size().min(next + PART_BYTES);
            hasher.update(&self.read(next..end).await?);
            next = end;
        }
        Ok(hasher.finalize().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")))
    }

    /// A part of the bytes, for a thread that may block.
    pub(super) fn reader(&self, runtime: Handle, range: Range<u64>) -> BlockingReader {
        BlockingReader { content: self.clone(), runtime, missing: range, buffer: Bytes::new() }
    }
}

/// Reads a part of a content on a thread that may block.
pub(super) struct BlockingReader {
    content: Content,
    runtime: Handle,
    missing: Range<u64>,
    buffer: Bytes,
}

impl Read for BlockingReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() && !self.missing.is_empty() {
            let end = self.missing.end.min(self.missing.start + PART_BYTES);
            let part = self.content.read(self.missing.start..end);
            self.buffer = self.runtime.block_on(part).map_err(io::Error::other)?;
            self.missing.start = end;
        }
        let count = out.len().min(self.buffer.len());
        out[..count].copy_from_slice(&self.buffer.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hashes_are_those_of_git_and_of_large_files() {
        let content = Content::Text(Bytes::from_static(b"hello\n"));
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        assert_eq!(content.hash_like(git).await.unwrap(), git);
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(content.hash_like(sha256).await.unwrap(), sha256);
    }
}
