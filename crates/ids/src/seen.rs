//! The ids that a run has seen, in a fixed amount of memory.
//!
//! A Bloom filter of fixed size recognizes new ids, which are nearly all. The others are looked up: among the newest
//! ids in memory, then in sorted runs on disk. Runs of equal size are merged, so there are few of them, and a look-up
//! reads a few pages however many ids there are.

use std::{collections::HashSet, fmt, io};

use crate::sorted_run::{SortedRun, hash};

/// 64-bit words of the filter, 32 MiB for every corpus: of 10 million new ids, fewer than one in ten thousand is looked
/// up.
const FILTER_WORDS: usize = 1 << 22;
const FILTER_HASHES: u32 = 6;
/// Ids in memory before they are written as a run.
const MAX_IDS_IN_MEMORY: usize = 1 << 15;
/// Runs of one level that are merged into one of the next.
const MERGE_FAN_IN: usize = 8;

/// The ids seen so far, by 128 bits of their BLAKE3.
pub struct SeenIds {
    filter: Vec<u64>,
    newest: HashSet<u128>,
    /// By level; a run of level n holds `MAX_IDS_IN_MEMORY * MERGE_FAN_IN^n` ids.
    runs: Vec<Vec<SortedRun>>,
}

impl SeenIds {
    /// An empty set.
    pub fn new() -> Self {
        Self { filter: vec![0; FILTER_WORDS], newest: HashSet::with_capacity(MAX_IDS_IN_MEMORY), runs: Vec::new() }
    }

    /// Adds an id; false if it was in the set already.
    ///
    /// # Errors
    /// When a temporary file cannot be written or read.
    pub fn insert(&mut self, id: impl AsRef<[u8]>) -> io::Result<bool> {
        self.insert_hash(hash(id.as_ref()))
    }

    /// As [`insert`](Self::insert), for an id of which only the [`hash`] is known.
    ///
    /// # Errors
    /// When a temporary file cannot be written or read.
    pub fn insert_hash(&mut self, hash: u128) -> io::Result<bool> {
        if self.filter_has(hash) && self.has(hash)? {
            return Ok(false);
        }
        self.filter_add(hash);
        self.newest.insert(hash);
        if self.newest.len() == MAX_IDS_IN_MEMORY {
            self.flush()?;
        }
        Ok(true)
    }

    /// Whether an id was seen.
    ///
    /// # Errors
    /// When a temporary file cannot be read.
    pub fn contains(&mut self, id: impl AsRef<[u8]>) -> io::Result<bool> {
        let hash = hash(id.as_ref());
        Ok(self.filter_has(hash) && self.has(hash)?)
    }

    fn has(&mut self, hash: u128) -> io::Result<bool> {
        if self.newest.contains(&hash) {
            return Ok(true);
        }
        for run in self.runs.iter_mut().flatten() {
            if run.has(hash)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the newest ids as a run, and merges levels that are full.
    fn flush(&mut self) -> io::Result<()> {
        let mut hashes: Vec<u128> = self.newest.drain().collect();
        hashes.sort_unstable();
        let mut run = SortedRun::write(hashes.into_iter().map(Ok))?;
        for level in 0.. {
            if self.runs.len() == level {
                self.runs.push(Vec::with_capacity(MERGE_FAN_IN));
            }
            self.runs[level].push(run);
            if self.runs[level].len() < MERGE_FAN_IN {
                break;
            }
            run = SortedRun::merge(std::mem::take(&mut self.runs[level]))?;
        }
        Ok(())
    }

    /// The word and bit of each hash of the filter, derived from the two halves of the id's hash.
    fn filter_bits(hash: u128) -> impl Iterator<Item = (usize, u64)> {
        let (low, high) = (hash as u64, (hash >> 64) as u64 | 1);
        (0..FILTER_HASHES).map(move |n| {
            let place = low.wrapping_add(high.wrapping_mul(u64::from(n))) as usize % (FILTER_WORDS * 64);
            (place / 64, 1 << (place % 64))
        })
    }

    fn filter_has(&self, hash: u128) -> bool {
        Self::filter_bits(hash).all(|(word, bit)| self.filter[word] & bit != 0)
    }

    fn filter_add(&mut self, hash: u128) {
        for (word, bit) in Self::filter_bits(hash) {
            self.filter[word] |= bit;
        }
    }
}

impl Default for SeenIds {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SeenIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeenIds").field("newest", &self.newest.len()).field("runs", &self.runs).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_new_once_even_after_it_spilled() {
        let mut seen = SeenIds::new();
        // Enough for a merged run, some unmerged runs, and some ids in memory.
        let ids = || (0..10 * MAX_IDS_IN_MEMORY + 1000).map(|n| format!("id-{n}"));
        assert!(ids().all(|id| seen.insert(&id).unwrap()));
        let runs: Vec<usize> = seen.runs.iter().map(Vec::len).collect();
        assert_eq!((runs, seen.newest.len()), (vec![2, 1], 1000));
        assert!(ids().step_by(97).all(|id| !seen.insert(&id).unwrap() && seen.contains(&id).unwrap()));
        assert!(!seen.contains("another").unwrap() && seen.insert("another").unwrap());
    }

    #[test]
    fn false_positives_of_the_filter_are_looked_up() {
        let mut seen = SeenIds::new();
        seen.filter.fill(u64::MAX);
        let ids = || (0..MAX_IDS_IN_MEMORY + 10).map(|n| format!("id-{n}"));
        assert!(ids().all(|id| seen.insert(&id).unwrap()));
        assert!(ids().all(|id| !seen.insert(&id).unwrap()));
    }
}
