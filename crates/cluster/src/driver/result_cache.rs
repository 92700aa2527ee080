//! Results that wait for their turn, in a fixed amount of memory. The others are read from the outbox again.

use std::collections::HashMap;

use arrow::array::RecordBatch;

use crate::result::SplitResult;

/// Memory of the results, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// Some of the results that wait.
#[derive(Debug, Default)]
pub(super) struct ResultCache {
    results: HashMap<String, (SplitResult, usize)>,
    bytes: usize,
}

impl ResultCache {
    /// Keeps a result, if there is room for it.
    pub(super) fn insert(&mut self, name: String, result: SplitResult) {
        let windows = result.windows.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
        let bytes = windows + (result.ids.good.len() + result.ids.refused.len()) * size_of::<u128>();
        if self.bytes + bytes <= MAX_BYTES {
            self.bytes += bytes;
            self.results.insert(name, (result, bytes));
        }
    }

    /// The result of this name, if it was kept.
    pub(super) fn take(&mut self, name: &str) -> Option<SplitResult> {
        let (result, bytes) = self.results.remove(name)?;
        self.bytes -= bytes;
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_kept_within_the_memory() {
        let large = || {
            let mut result = SplitResult::default();
            result.ids.good = vec![0; MAX_BYTES / 2 / size_of::<u128>()];
            result
        };
        let mut cache = ResultCache::default();
        for name in ["a", "b", "c"] {
            cache.insert(name.to_owned(), large());
        }
        assert!(cache.take("a").is_some() && cache.take("a").is_none());
        assert!(cache.take("c").is_none());
        cache.insert("d".to_owned(), large());
        assert!(cache.take("b").is_some() && cache.take("d").is_some());
        assert_eq!(cache.bytes, 0);
    }
}
