//! The keys of the table's documents, in memory and, beyond the granted memory, in sorted runs on disk.
//!
//! A key is 128 bits of a hash, so 100 million documents take 1.6 GB. They are gathered in a plain vector, which is
//! sorted once: a hash set would take more memory, and twice that while it grows. Hashes are spread evenly, so a
//! look-up starts at the expected position of the hash and ends near it.

use std::io;

use datafusion::execution::memory_pool::MemoryReservation;

use polylance_ids::SortedRun;

/// Keys that are kept in memory even if the pool grants nothing.
const MIN_KEYS_IN_MEMORY: usize = 1 << 16;

/// All keys of a table.
pub(crate) struct KeySet {
    /// In rising order.
    sorted: Vec<u128>,
    runs: Vec<SortedRun>,
    /// Freed together with the keys.
    _memory: MemoryReservation,
}

/// A [`KeySet`] that is being filled.
pub(crate) struct KeySetBuilder {
    keys: Vec<u128>,
    runs: Vec<SortedRun>,
    memory: MemoryReservation,
}

impl KeySetBuilder {
    pub(crate) fn new(memory: MemoryReservation) -> Self {
        Self { keys: Vec::new(), runs: Vec::new(), memory }
    }

    pub(crate) fn insert(&mut self, key: u128) -> io::Result<()> {
        if self.keys.len() == self.keys.capacity() && !self.grow() {
            self.spill()?;
        }
        self.keys.push(key);
        Ok(())
    }

    /// Makes room for twice as many keys; false when the pool does not grant it.
    fn grow(&mut self) -> bool {
        let capacity = (self.keys.capacity() * 2).max(MIN_KEYS_IN_MEMORY);
        let bytes = capacity * size_of::<u128>() + self.runs.iter().map(SortedRun::memory).sum::<usize>();
        let granted = self.memory.try_resize(bytes).is_ok();
        if !granted && capacity > MIN_KEYS_IN_MEMORY {
            return false;
        }
        self.keys.reserve_exact(capacity - self.keys.len());
        true
    }

    fn spill(&mut self) -> io::Result<()> {
        self.keys.sort_unstable();
        self.runs.push(SortedRun::write(self.keys.drain(..).map(Ok))?);
        Ok(())
    }

    /// The set of the keys inserted so far.
    pub(crate) fn finish(mut self) -> io::Result<KeySet> {
        self.keys.sort_unstable();
        // One run costs one read per look-up.
        if self.runs.len() > 1 {
            self.runs = vec![SortedRun::merge(self.runs)?];
        }
        Ok(KeySet { sorted: self.keys, runs: self.runs, _memory: self.memory })
    }
}

impl KeySet {
    pub(crate) fn is_empty(&self) -> bool {
        self.sorted.is_empty() && self.runs.is_empty()
    }

    pub(crate) fn contains(&mut self, key: u128) -> io::Result<bool> {
        if contains_sorted(&self.sorted, key) {
            return Ok(true);
        }
        for run in &mut self.runs {
            if run.has(key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether sorted hashes contain one: from its expected position outwards in steps that double, then by bisection.
fn contains_sorted(sorted: &[u128], key: u128) -> bool {
    if sorted.is_empty() {
        return false;
    }
    let expected = (((key >> 64) * sorted.len() as u128) >> 64) as usize;
    let (mut low, mut high) = (expected, expected + 1);
    let mut step = 16;
    while low > 0 && sorted[low] > key {
        low = low.saturating_sub(step);
        step *= 2;
    }
    let mut step = 16;
    while high < sorted.len() && sorted[high - 1] < key {
        high = (high + step).min(sorted.len());
        step *= 2;
    }
    sorted[low..high].binary_search(&key).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};

    use polylance_ids::hash;

    use super::*;

    fn keys(count: usize, memory: usize) -> (KeySet, Arc<dyn MemoryPool>) {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(memory));
        let mut builder = KeySetBuilder::new(MemoryConsumer::new("keys").register(&pool));
        (0..count).for_each(|n| builder.insert(hash(&n.to_le_bytes())).unwrap());
        (builder.finish().unwrap(), pool)
    }

    fn check(keys: &mut KeySet, count: usize) {
        assert!((0..count).step_by(7).all(|n| keys.contains(hash(&n.to_le_bytes())).unwrap()));
        assert!((count..=2 * count).step_by(7).all(|n| !keys.contains(hash(&n.to_le_bytes())).unwrap()));
        for key in [0, 1, u128::MAX, u128::MAX / 2] {
            assert!(!keys.contains(key).unwrap());
        }
    }

    #[test]
    fn exactly_the_inserted_keys_are_found() {
        for count in [0, 1, 2, 15, 1000, 200_000] {
            let (mut keys, _) = keys(count, 1 << 30);
            assert!(keys.runs.is_empty() && keys.is_empty() == (count == 0));
            check(&mut keys, count);
        }
    }

    #[test]
    fn keys_beyond_the_granted_memory_spill_to_disk() {
        let count = 5 * MIN_KEYS_IN_MEMORY + 17;
        for memory in [0, MIN_KEYS_IN_MEMORY * 16, MIN_KEYS_IN_MEMORY * 40] {
            let (mut keys, pool) = keys(count, memory);
            assert_eq!(keys.runs.len(), 1);
            assert!(keys.sorted.capacity() <= (memory / 16).max(MIN_KEYS_IN_MEMORY) && pool.reserved() <= memory);
            check(&mut keys, count);
        }
    }

    #[test]
    fn unevenly_spread_hashes_are_found() {
        let sorted: Vec<u128> = (0..1000).chain((0..1000).map(|n| u128::MAX - 1000 + n)).collect();
        assert!(sorted.iter().all(|&key| contains_sorted(&sorted, key)));
        assert!(![1000, u128::MAX / 3, u128::MAX].into_iter().any(|key| contains_sorted(&sorted, key)));
    }
}
