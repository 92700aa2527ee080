//! Sorted hashes on disk, looked up with one read.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
};

/// Hashes that are read at once.
const PAGE_HASHES: u64 = 256;
const HASH_BYTES: u64 = size_of::<u128>() as u64;

/// The first 128 bits of the BLAKE3 of some bytes.
pub fn hash(bytes: &[u8]) -> u128 {
    u128::from_le_bytes(*blake3::hash(bytes).as_bytes().first_chunk().unwrap_or(&[0; 16]))
}

/// Ascending hashes in an unnamed file that is deleted with its handle. The first hash of each page is in memory: one
/// in 256.
#[derive(Debug)]
pub struct SortedRun {
    file: File,
    len: u64,
    firsts: Vec<u128>,
}

impl SortedRun {
    /// Writes ascending hashes.
    ///
    /// # Errors
    /// When one of them is an error, or the temporary file cannot be written.
    pub fn write(hashes: impl Iterator<Item = io::Result<u128>>) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 16, tempfile::tempfile()?);
        let (mut len, mut firsts) = (0, Vec::new());
        for hash in hashes {
            let hash = hash?;
            if len % PAGE_HASHES == 0 {
                firsts.push(hash);
            }
            file.write_all(&hash.to_le_bytes())?;
            len += 1;
        }
        Ok(Self { file: file.into_inner().map_err(io::IntoInnerError::into_error)?, len, firsts })
    }

    /// Merges runs into one.
    ///
    /// # Errors
    /// When a temporary file cannot be read or written.
    pub fn merge(runs: Vec<Self>) -> io::Result<Self> {
        let mut inputs = runs.into_iter().map(Self::into_hashes).collect::<io::Result<Vec<_>>>()?;
        let mut heads = inputs.iter_mut().map(|input| input.next().transpose()).collect::<io::Result<Vec<_>>>()?;
        Self::write(std::iter::from_fn(move || {
            let (hash, at) = heads.iter().enumerate().filter_map(|(at, head)| Some(((*head)?, at))).min()?;
            match inputs[at].next().transpose() {
                Ok(next) => heads[at] = next,
                Err(error) => return Some(Err(error)),
            }
            Some(Ok(hash))
        }))
    }

    fn into_hashes(mut self) -> io::Result<impl Iterator<Item = io::Result<u128>>> {
        self.file.rewind()?;
        let mut reader = BufReader::with_capacity(1 << 16, self.file);
        Ok((0..self.len).map(move |_| {
            let mut hash = [0; 16];
            reader.read_exact(&mut hash)?;
            Ok(u128::from_le_bytes(hash))
        }))
    }

    /// Whether the run holds a hash.
    ///
    /// # Errors
    /// When the temporary file cannot be read.
    pub fn has(&mut self, hash: u128) -> io::Result<bool> {
        let Some(page) = self.firsts.partition_point(|first| *first <= hash).checked_sub(1) else { return Ok(false) };
        let first = page as u64 * PAGE_HASHES;
        let page = self.read(first, PAGE_HASHES.min(self.len - first))?;
        Ok(page.binary_search(&hash).is_ok())
    }

    /// Bytes in memory.
    pub fn memory(&self) -> usize {
        self.firsts.capacity() * size_of::<u128>()
    }

    fn read(&mut self, first: u64, count: u64) -> io::Result<Vec<u128>> {
        let mut bytes = vec![0; (count * HASH_BYTES) as usize];
        self.file.seek(SeekFrom::Start(first * HASH_BYTES))?;
        self.file.read_exact(&mut bytes)?;
        let (hashes, _) = bytes.as_chunks();
        Ok(hashes.iter().map(|hash| u128::from_le_bytes(*hash)).collect())
    }
}
