//! The keys of the table's documents: in memory as far as it is granted, the rest in sorted runs on disk.
//!
//! A key is 128 bits of a hash, so 100 million documents are 1.6 GB. They are gathered in a plain vector, which is
//! sorted once: a hash set would take more, and twice that while it grows. Hashes are spread evenly, so a look-up
//! begins where the hash should be and ends a few places from there.

use std::io;

use datafusion::execution::memory_pool::MemoryReservation;

use polylance_ids::SortedRun;

/// Keys that are gathered whatever the pool grants.
const LEAST: usize = 1 << 16;

/// The keys of a table, once all of them are in.
pub(crate) struct KnownKeys {
    /// In rising order.
    sorted: Vec<u128>,
    runs: Vec<SortedRun>,
    /// For as long as they are held.
    _memory: MemoryReservation,
}

/// [`KnownKeys`] that are being gathered.
pub(crate) struct KnownKeysBuilder {
    keys: Vec<u128>,
    runs: Vec<SortedRun>,
    memory: MemoryReservation,
}

impl KnownKeysBuilder {
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

    /// Makes room for twice as many keys, if the pool has it.
    fn grow(&mut self) -> bool {
        let capacity = (self.keys.capacity() * 2).max(LEAST);
        let bytes = capacity * size_of::<u128>() + self.runs.iter().map(SortedRun::memory).sum::<usize>();
        let granted = self.memory.try_resize(bytes).is_ok();
        if !granted && capacity > LEAST {
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

    /// No key comes any more.
    pub(crate) fn finish(mut self) -> io::Result<KnownKeys> {
        self.keys.sort_unstable();
        // One run is one read a look-up.
        if self.runs.len() > 1 {
            self.runs = vec![SortedRun::merge(self.runs)?];
        }
        Ok(KnownKeys { sorted: self.keys, runs: self.runs, _memory: self.memory })
    }
}

impl KnownKeys {
    pub(crate) fn is_empty(&self) -> bool {
        self.sorted.is_empty() && self.runs.is_empty()
    }

    pub(crate) fn has(&mut self, key: u128) -> io::Result<bool> {
        if found(&self.sorted, key) {
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

/// Whether sorted hashes hold a hash: from its expected place outwards in steps that double, then by halves.
fn found(sorted: &[u128], key: u128) -> bool {
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

    fn keys(count: usize, memory: usize) -> (KnownKeys, Arc<dyn MemoryPool>) {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(memory));
        let mut builder = KnownKeysBuilder::new(MemoryConsumer::new("keys").register(&pool));
        (0..count).for_each(|n| builder.insert(hash(&n.to_le_bytes())).unwrap());
        (builder.finish().unwrap(), pool)
    }

    fn check(keys: &mut KnownKeys, count: usize) {
        assert!((0..count).step_by(7).all(|n| keys.has(hash(&n.to_le_bytes())).unwrap()));
        assert!((count..=2 * count).step_by(7).all(|n| !keys.has(hash(&n.to_le_bytes())).unwrap()));
        for key in [0, 1, u128::MAX, u128::MAX / 2] {
            assert!(!keys.has(key).unwrap());
        }
    }

    #[test]
    fn every_key_is_found_and_no_other() {
        for count in [0, 1, 2, 15, 1000, 200_000] {
            let (mut keys, _) = keys(count, 1 << 30);
            assert!(keys.runs.is_empty() && keys.is_empty() == (count == 0));
            check(&mut keys, count);
        }
    }

    #[test]
    fn keys_that_memory_has_no_room_for_go_to_disk() {
        let count = 5 * LEAST + 17;
        for memory in [0, LEAST * 16, LEAST * 40] {
            let (mut keys, pool) = keys(count, memory);
            assert_eq!(keys.runs.len(), 1);
            assert!(keys.sorted.capacity() <= (memory / 16).max(LEAST) && pool.reserved() <= memory);
            check(&mut keys, count);
        }
    }

    #[test]
    fn hashes_that_are_not_spread_are_found_too() {
        let sorted: Vec<u128> = (0..1000).chain((0..1000).map(|n| u128::MAX - 1000 + n)).collect();
        assert!(sorted.iter().all(|&key| found(&sorted, key)));
        assert!(![1000, u128::MAX / 3, u128::MAX].into_iter().any(|key| found(&sorted, key)));
    }
}
