//! A part of a batch, shared with the thread that computes it.
//!
//! A thread that is left behind keeps what it was given: so inputs are shared, and neither moved nor copied.

use std::{ops::Range, sync::Arc};

use crate::queues::Ids;

/// Neighbouring inputs of a batch.
#[derive(Debug)]
pub(crate) struct Part<I> {
    batch: Arc<[I]>,
    range: Range<usize>,
}

impl<I> Clone for Part<I> {
    fn clone(&self) -> Self {
        Self { batch: Arc::clone(&self.batch), range: self.range.clone() }
    }
}

impl<I> Part<I> {
    /// All of a batch.
    pub(crate) fn whole(batch: Arc<[I]>) -> Self {
        Self { range: 0..batch.len(), batch }
    }

    pub(crate) fn inputs(&self) -> &[I] {
        &self.batch[self.range.clone()]
    }

    pub(crate) fn halves(&self) -> [Self; 2] {
        let middle = self.range.start + self.range.len() / 2;
        [self.of(self.range.start..middle), self.of(middle..self.range.end)]
    }

    /// Each input alone, in order, and with it the inputs behind it.
    pub(crate) fn singles(&self) -> impl Iterator<Item = (Self, Self)> {
        self.range.clone().map(|at| (self.of(at..at + 1), self.of(at + 1..self.range.end)))
    }

    fn of(&self, range: Range<usize>) -> Self {
        Self { batch: Arc::clone(&self.batch), range }
    }
}

impl<I: Ids> Part<I> {
    pub(crate) fn ids(&self) -> usize {
        self.inputs().iter().map(Ids::ids).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_slices_of_the_batch() {
        let whole = Part::whole(Arc::from(vec![vec![1_u32], vec![2, 2], vec![3]]));
        let [first, second] = whole.halves();
        assert_eq!((first.inputs(), first.ids()), (&[vec![1]][..], 1));
        assert_eq!((second.inputs(), second.ids()), (&[vec![2, 2], vec![3]][..], 3));
        let singles: Vec<_> = second.singles().map(|(one, rest)| (one.ids(), rest.ids())).collect();
        assert_eq!(singles, [(2, 1), (1, 0)]);
    }
}
