//! Which ids a run has seen, in memory that does not grow.
//!
//! A Bloom filter of fixed size answers for the ids that are new, which are nearly all. What it takes for seen is
//! looked up among the hashes of all ids, which lie on disk in buckets. At 10 million ids the filter sends fewer than
//! one new id in ten thousand to the disk.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
};

/// 32 MiB of bits, the same for every corpus.
const FILTER_WORDS: usize = 1 << 22;
const FILTER_HASHES: u32 = 6;
const BUCKETS: usize = 64;
/// Bytes of a bucket that wait for the disk.
const BUCKET_BUFFER: usize = 8 << 10;

/// The ids seen so far, by 128 bits of their BLAKE3.
pub(crate) struct SeenIds {
    filter: Vec<u64>,
    buckets: Vec<Bucket>,
}

struct Bucket {
    file: Option<File>,
    buffer: Vec<u8>,
}

impl SeenIds {
    pub(crate) fn new() -> Self {
        let bucket = || Bucket { file: None, buffer: Vec::with_capacity(BUCKET_BUFFER) };
        Self { filter: vec![0; FILTER_WORDS], buckets: (0..BUCKETS).map(|_| bucket()).collect() }
    }

    /// Remembers an id; false when it was there already.
    pub(crate) fn insert(&mut self, id: &str) -> io::Result<bool> {
        let digest = blake3::hash(id.as_bytes());
        let hash: &[u8; 16] = digest.as_bytes().first_chunk().unwrap_or(&[0; 16]);
        let maybe = self.filter_has(u128::from_le_bytes(*hash));
        let bucket = &mut self.buckets[usize::from(hash[15]) % BUCKETS];
        if maybe && bucket.has(hash)? {
            return Ok(false);
        }
        bucket.push(hash)?;
        self.filter_add(u128::from_le_bytes(*hash));
        Ok(true)
    }

    /// Word and bit of each of the filter's hashes, from two halves of the id's.
    fn places(hash: u128) -> impl Iterator<Item = (usize, u64)> {
        let (low, high) = (hash as u64, (hash >> 64) as u64 | 1);
        (0..FILTER_HASHES).map(move |n| {
            let place = low.wrapping_add(high.wrapping_mul(u64::from(n))) as usize % (FILTER_WORDS * 64);
            (place / 64, 1 << (place % 64))
        })
    }

    fn filter_has(&self, hash: u128) -> bool {
        Self::places(hash).all(|(word, bit)| self.filter[word] & bit != 0)
    }

    fn filter_add(&mut self, hash: u128) {
        for (word, bit) in Self::places(hash) {
            self.filter[word] |= bit;
        }
    }
}

impl Bucket {
    fn push(&mut self, hash: &[u8; 16]) -> io::Result<()> {
        if self.buffer.len() + hash.len() > BUCKET_BUFFER {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(tempfile::tempfile()?),
            };
            file.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(hash);
        Ok(())
    }

    fn has(&mut self, hash: &[u8; 16]) -> io::Result<bool> {
        if self.buffer.chunks_exact(16).any(|seen| seen == hash) {
            return Ok(true);
        }
        let Some(file) = &mut self.file else { return Ok(false) };
        file.rewind()?;
        let mut reader = BufReader::with_capacity(1 << 16, &mut *file);
        let mut seen = [0; 16];
        let mut found = false;
        while !found {
            match reader.read_exact(&mut seen) {
                Ok(()) => found = seen == *hash,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        file.seek(SeekFrom::End(0))?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_also_when_it_went_to_disk() {
        let mut seen = SeenIds::new();
        let ids = || (0..100_000).map(|n| format!("id-{n}"));
        assert!(ids().all(|id| seen.insert(&id).unwrap()));
        assert!(seen.buckets.iter().all(|bucket| bucket.file.is_some()));
        assert!(ids().step_by(997).all(|id| !seen.insert(&id).unwrap()));
        assert!(seen.insert("another").unwrap());
    }

    #[test]
    fn what_the_filter_takes_for_seen_is_looked_up() {
        let mut seen = SeenIds::new();
        assert!(seen.insert("a").unwrap());
        seen.filter.fill(u64::MAX);
        assert!(seen.insert("b").unwrap());
        assert!(!seen.insert("a").unwrap() && !seen.insert("b").unwrap());
    }
}
