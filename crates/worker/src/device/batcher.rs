//! Cuts inputs into batches by their number of tokens.

use std::ops::Range;

/// Cuts inputs, in order, into batches of at most `budget` tokens; an input over the budget is a batch of its own.
///
/// Packed batches have no padding, so neighbours may have any lengths and sorting gains nothing. The batches of one
/// call are about equally large, so that no device waits for the remainder of another.
pub(super) fn batches(lengths: &[usize], budget: usize, devices: usize) -> Vec<Range<usize>> {
    let total: usize = lengths.iter().sum();
    let rounds = total.div_ceil(budget.saturating_mul(devices).max(1)).max(1);
    let share = total.div_ceil(rounds.saturating_mul(devices).max(1));
    let mut batches = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (at, &length) in lengths.iter().enumerate() {
        // Closing here is nearer to the fair share than taking one more input.
        if at > start && (tokens + length / 2 > share || tokens + length > budget) {
            batches.push(start..at);
            (start, tokens) = (at, 0);
        }
        tokens += length;
    }
    if start < lengths.len() {
        batches.push(start..lengths.len());
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_input_is_in_one_batch_in_order(
            lengths in prop::collection::vec(1_usize..600, 0..200), budget in 1_usize..5000, devices in 1_usize..9
        ) {
            let batches = batches(&lengths, budget, devices);
            let joined: Vec<usize> = batches.iter().cloned().flatten().collect();
            prop_assert_eq!(joined, (0..lengths.len()).collect::<Vec<_>>());
            for batch in batches {
                let tokens: usize = lengths[batch.clone()].iter().sum();
                prop_assert!(batch.len() == 1 || tokens <= budget);
            }
        }
    }

    #[test]
    fn batches_are_equal_shares_of_the_devices() {
        assert_eq!(batches(&[100; 40], 4096, 2), [0..20, 20..40]);
        assert!(batches(&[], 4096, 2).is_empty());
    }
}
