//! A slice of a batch, shared with the thread that computes it.
//!
//! A detached thread keeps its inputs, so they are shared and neither moved nor copied.

use std::{ops::Range, sync::Arc};

use super::worker::TokenCount;

/// Neighbouring inputs of a batch.
#[derive(Debug)]
pub(super) struct BatchSlice<I> {
    batch: Arc<[I]>,
    range: Range<usize>,
}

impl<I> Clone for BatchSlice<I> {
    fn clone(&self) -> Self {
        Self { batch: Arc::clone(&self.batch), range: self.range.clone() }
    }
}

impl<I> BatchSlice<I> {
    /// The whole batch.
    pub(super) fn whole(batch: Arc<[I]>) -> Self {
        Self { range: 0..batch.len(), batch }
    }

    pub(super) fn inputs(&self) -> &[I] {
        &self.batch[self.range.clone()]
    }

    pub(super) fn halves(&self) -> [Self; 2] {
        let middle = self.range.start + self.range.len() / 2;
        [self.slice(self.range.start..middle), self.slice(middle..self.range.end)]
    }

    /// Each input alone, in order, paired with the inputs after it.
    pub(super) fn singles(&self) -> impl Iterator<Item = (Self, Self)> {
        self.range.clone().map(|at| (self.slice(at..at + 1), self.slice(at + 1..self.range.end)))
    }

    fn slice(&self, range: Range<usize>) -> Self {
        Self { batch: Arc::clone(&self.batch), range }
    }
}

impl<I: TokenCount> BatchSlice<I> {
    pub(super) fn token_count(&self) -> usize {
        self.inputs().iter().map(TokenCount::token_count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_and_singles_are_slices_of_the_batch() {
        let whole = BatchSlice::whole(Arc::from(vec![vec![1_u32], vec![2, 2], vec![3]]));
        let [first, second] = whole.halves();
        assert_eq!((first.inputs(), first.token_count()), (&[vec![1]][..], 1));
        assert_eq!((second.inputs(), second.token_count()), (&[vec![2, 2], vec![3]][..], 3));
        let singles: Vec<_> = second.singles().map(|(one, rest)| (one.token_count(), rest.token_count())).collect();
        assert_eq!(singles, [(2, 1), (1, 0)]);
    }
}
