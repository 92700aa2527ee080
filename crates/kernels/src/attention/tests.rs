use half::bf16;
use proptest::prelude::*;

use super::*;
use crate::testing::{Random, assert_near, rounded, widened};

/// The reference, in f64.
fn reference(attention: &SelfAttention, qkv: &[f32], cu_seqlens: &[u32]) -> Vec<f32> {
    let (hidden, size) = (attention.hidden(), attention.head_size);
    let part = |token: u32, part: usize, head: usize| {
        let start = (token as usize * 3 + part) * hidden + head * size;
        &qkv[start..start + size]
    };
    let mut context = vec![0.0; qkv.len() / 3];
    for borders in cu_seqlens.windows(2) {
        for (query, head) in
            (borders[0]..borders[1]).flat_map(|query| (0..attention.heads).map(move |head| (query, head)))
        {
            let score = |key: u32| -> f64 {
                let products = part(query, 0, head).iter().zip(part(key, 1, head));
                products.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() * f64::from(attention.scale)
            };
            let scores: Vec<f64> = (borders[0]..borders[1]).map(score).collect();
            let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exponentials: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
            let sum: f64 = exponentials.iter().sum();
            let out = &mut context[query as usize * hidden + head * size..][..size];
            for (i, out) in out.iter_mut().enumerate() {
                let keys = (borders[0]..borders[1]).zip(&exponentials);
                *out = (keys.map(|(key, e)| e * f64::from(part(key, 2, head)[i])).sum::<f64>() / sum) as f32;
            }
        }
    }
    context
}

fn borders(lengths: &[usize]) -> Vec<u32> {
    let ends = lengths.iter().scan(0, |end, length| {
        *end += *length as u32;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

fn forward_f32(isa: Isa, attention: &SelfAttention, qkv: &[f32], cu_seqlens: &[u32]) -> Vec<f32> {
    let mut context = vec![f32::NAN; qkv.len() / 3];
    attention.forward_f32(isa, qkv, cu_seqlens, &mut context);
    context
}

fn forward_bf16(isa: Isa, attention: &SelfAttention, qkv: &[bf16], cu_seqlens: &[u32]) -> Vec<bf16> {
    let mut context = vec![bf16::NAN; qkv.len() / 3];
    attention.forward_bf16(isa, qkv, cu_seqlens, &mut context);
    context
}

/// Values are at most 1, so rounding the probabilities to bf16 moves a context by at most 2^-9, and so does rounding
/// the context.
const BF16_TOLERANCE: f32 = 8e-3;

fn check(heads: usize, head_size: usize, lengths: &[usize], seed: u64) {
    let attention = SelfAttention::new(heads, head_size, 1.0 / (head_size as f32).sqrt());
    let cu_seqlens = borders(lengths);
    let tokens = *cu_seqlens.last().unwrap() as usize;
    let mut qkv = Random::new(seed).numbers(tokens * 3 * attention.hidden(), 1.0);
    for row in qkv.chunks_exact_mut(3 * attention.hidden()) {
        for x in &mut row[..attention.hidden()] {
            *x *= 8.0;
        }
    }
    let expected = reference(&attention, &qkv, &cu_seqlens);
    let halves = rounded(&qkv);
    let expected_of_halves = reference(&attention, &widened(&halves), &cu_seqlens);
    for isa in Isa::available() {
        assert_near(&forward_f32(isa, &attention, &qkv, &cu_seqlens), &expected, 1e-5);
        let found = widened(&forward_bf16(isa, &attention, &halves, &cu_seqlens));
        assert_near(&found, &expected_of_halves, BF16_TOLERANCE);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_isa_matches_the_reference(
        seed: u64,
        heads in 1_usize..4,
        head_size in prop::sample::select(vec![1, 3, 4, 8, 14, 16, 32, 36, 64, 80, 128]),
        lengths in prop::collection::vec(0_usize..60, 0..5),
    ) {
        check(heads, head_size, &lengths, seed);
    }
}

#[test]
fn edge_sizes_match_the_reference() {
    for head_size in [4, 32, 64, 80, 128] {
        check(2, head_size, &[1], 1);
        check(2, head_size, &[1, 1, 2, 3, 1, 4, 5, 6, 7, 8, 9], 2);
        check(1, head_size, &[15, 16, 17, 31, 32, 33, 103], 3);
    }
    check(1, 32, &[513], 4);
    check(1, 80, &[513], 5);
}

/// Compares the bits of a sequence's contexts, alone and between others, at several positions.
#[test]
fn sequence_alone_equals_sequence_in_batch() {
    for (head_size, tokens) in [(32, 1), (32, 7), (32, 12), (32, 50), (64, 103), (80, 33), (6, 40), (3, 20)] {
        let attention = SelfAttention::new(2, head_size, 0.3);
        let row = 3 * attention.hidden();
        let mut random = Random::new(tokens as u64);
        let sequence = random.numbers(tokens * row, 2.0);
        for (before, after) in [(vec![], vec![]), (vec![5], vec![1]), (vec![70, 3], vec![]), (vec![1, 1], vec![200])] {
            let start: usize = before.iter().sum();
            let mut lengths = before.clone();
            lengths.push(tokens);
            lengths.extend(&after);
            let mut qkv = random.numbers(start * row, 50.0);
            qkv.extend(&sequence);
            qkv.extend(random.numbers(after.iter().sum::<usize>() * row, 50.0));
            // A NaN in a neighbour must not matter either.
            if start > 0 {
                qkv[start * row - 1] = f32::NAN;
            }
            let range = start * attention.hidden()..(start + tokens) * attention.hidden();
            for isa in Isa::available() {
                let alone = forward_f32(isa, &attention, &sequence, &borders(&[tokens]));
                let among = forward_f32(isa, &attention, &qkv, &borders(&lengths));
                assert_eq!(among[range.clone()], alone, "{isa} {head_size} {tokens}");
                let alone = forward_bf16(isa, &attention, &rounded(&sequence), &borders(&[tokens]));
                let among = forward_bf16(isa, &attention, &rounded(&qkv), &borders(&lengths));
                assert_eq!(among[range.clone()], alone, "{isa} {head_size} {tokens}");
            }
        }
    }
}

#[test]
fn highest_of_very_large_scores_wins() {
    let (size, tokens) = (32, 20);
    let attention = SelfAttention::new(1, size, 1.0);
    let mut qkv = vec![0.0; tokens * 3 * size];
    for (token, row) in qkv.chunks_exact_mut(3 * size).enumerate() {
        row[0] = 1e15;
        row[size] = if token == 13 { 1e15 } else { -1e15 * token as f32 };
        row[2 * size..].fill(token as f32);
    }
    for isa in Isa::available() {
        assert!(forward_f32(isa, &attention, &qkv, &[0, 20]).iter().all(|x| *x == 13.0), "{isa}");
        assert!(forward_bf16(isa, &attention, &rounded(&qkv), &[0, 20]).iter().all(|x| x.to_f32() == 13.0), "{isa}");
    }
}

#[test]
fn minus_infinity_score_has_probability_zero() {
    let attention = SelfAttention::new(1, 2, 1.0);
    // Keys of the second token overflow downwards.
    let qkv = [1e25, 1e25, 0.0, 0.0, 3.0, 4.0, 1e25, 1e25, -1e25, -1e25, 100.0, 100.0];
    for isa in Isa::available() {
        assert_eq!(forward_f32(isa, &attention, &qkv, &[0, 2]), [3.0, 4.0, 3.0, 4.0], "{isa}");
        assert_eq!(widened(&forward_bf16(isa, &attention, &rounded(&qkv), &[0, 2])), [3.0, 4.0, 3.0, 4.0], "{isa}");
    }
}

#[test]
fn nan_reaches_exactly_the_contexts_that_depend_on_it() {
    let (size, tokens) = (32, 19);
    let attention = SelfAttention::new(2, size, 0.2);
    let row = 3 * attention.hidden();
    let qkv = Random::new(9).numbers(tokens * row, 1.0);
    let (query, key, value) = (5 * row + 3, 18 * row + 2 * size + 31, 7 * row + 4 * size + 1);
    for isa in Isa::available() {
        for (at, tokens_hit, numbers_hit) in
            [(query, 5..6, 0..size), (key, 0..tokens, 0..size), (value, 0..tokens, 1..2)]
        {
            let mut qkv = qkv.clone();
            qkv[at] = f32::NAN;
            let exact = forward_f32(isa, &attention, &qkv, &[0, tokens as u32]);
            let halves = widened(&forward_bf16(isa, &attention, &rounded(&qkv), &[0, tokens as u32]));
            for context in [exact, halves] {
                for (i, x) in context.into_iter().enumerate() {
                    let (token, number) = (i / (2 * size), i % (2 * size));
                    let hit = tokens_hit.contains(&token) && numbers_hit.contains(&number);
                    assert_eq!(x.is_nan(), hit, "{isa}: {at}: token {token}, number {number}");
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "sequences lie one after another")]
fn descending_sequences_panic() {
    forward_f32(Isa::detect(), &SelfAttention::new(1, 1, 1.0), &[0.0; 9], &[0, 5, 3]);
}

#[test]
#[should_panic(expected = "a token has a query, a key and a value")]
fn missing_rows_panic() {
    forward_f32(Isa::detect(), &SelfAttention::new(1, 1, 1.0), &[0.0; 6], &[0, 3]);
}
