//! The bytes of a weight file, mapped into memory.

use std::{fs::File, ops::Range, path::Path};

use memmap2::{Advice, Mmap, UncheckedAdvice};

use crate::error::{ModelError, Result};

/// The smallest page size of supported systems.
const PAGE_BYTES: usize = 4096;

/// Bytes that live as long as the model: a mapped file, or the binary itself.
#[derive(Debug)]
pub(crate) enum Bytes {
    #[cfg(feature = "builtin")]
    Static(&'static [u8]),
    Mapped(Mmap),
}

impl Bytes {
    /// Maps a file for reading.
    pub(crate) fn map(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(ModelError::io(path))?;
        if file.metadata().map_err(ModelError::io(path))?.len() == 0 {
            return Err(ModelError::damaged(path, "the file is empty"));
        }
        #[expect(unsafe_code, reason = "mapping is the only way to read weights without a second copy of them")]
        // SAFETY: the map is read-only and private to this process. Weight files are not written while a model
        // uses them: hub blobs are renamed into place whole, and replacing a file leaves the mapped inode as it
        // was. Truncating a mapped file would raise SIGBUS, as in every program that maps its weights.
        let map = unsafe { Mmap::map(&file) }.map_err(ModelError::io(path))?;
        Ok(Self::Mapped(map))
    }

    #[cfg_attr(
        not(feature = "builtin"),
        expect(clippy::unnecessary_wraps, reason = "without a model in the binary every file is mapped")
    )]
    fn mapped(&self) -> Option<&Mmap> {
        match self {
            #[cfg(feature = "builtin")]
            Self::Static(_) => None,
            Self::Mapped(map) => Some(map),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            #[cfg(feature = "builtin")]
            Self::Static(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }

    /// Advises the system that a range will be read, so that it maps the pages at once instead of one per page fault.
    pub(crate) fn prefetch(&self, range: &Range<usize>) {
        let Some(map) = self.mapped() else { return };
        let start = range.start / PAGE_BYTES * PAGE_BYTES;
        #[cfg(target_os = "linux")]
        let advice = Advice::PopulateRead;
        #[cfg(not(target_os = "linux"))]
        let advice = Advice::WillNeed;
        // An older system ignores the advice, and reading works without it.
        if let Err(error) = map.advise_range(advice, start, range.end.saturating_sub(start)) {
            tracing::debug!(%error, "the system does not map pages ahead");
        }
    }

    /// Advises the system that the pages of a range can be dropped; reading it again maps them again.
    pub(crate) fn release(&self, range: &Range<usize>) {
        let Some(map) = self.mapped() else { return };
        // Only whole pages inside the range: its neighbours may still be in use.
        let start = range.start.next_multiple_of(PAGE_BYTES);
        let end = range.end.min(map.len()) / PAGE_BYTES * PAGE_BYTES;
        if start >= end {
            return;
        }
        #[expect(unsafe_code, reason = "memmap2 offers this advice only unchecked")]
        // SAFETY: the map is a shared, read-only view of a file, so pages given up are read from the file again;
        // nothing written can be lost.
        let advised = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
        if let Err(error) = advised {
            tracing::debug!(%error, "the system keeps pages that are no longer needed");
        }
    }
}
