//! Two rankings into one.

use std::collections::HashMap;

use crate::{Fusion, candidates::Candidate};

/// The constant of reciprocal rank fusion, as its authors chose it.
const RANK_CONSTANT: f32 = 60.0;

/// Where a row stands in one ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    /// From 1.
    pub(crate) rank: u32,
    /// A distance or a BM25 score.
    pub(crate) value: f32,
}

/// A row with all that is known of its fit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) row: u64,
    pub(crate) doc_id: String,
    pub(crate) vector: Option<Place>,
    pub(crate) text: Option<Place>,
    pub(crate) rerank: Option<f32>,
    /// By this they are ordered, best first.
    pub(crate) score: f32,
}

/// Rows by meaning alone; `score` says what a distance is worth.
pub(crate) fn of_vectors(candidates: Vec<Candidate>, score: impl Fn(f32) -> f32) -> Vec<Ranked> {
    places(candidates)
        .map(|(row, doc_id, place)| Ranked {
            row,
            doc_id,
            vector: Some(place),
            text: None,
            rerank: None,
            score: score(place.value),
        })
        .collect()
}

/// Rows by words alone: the score is BM25's.
pub(crate) fn of_words(candidates: Vec<Candidate>) -> Vec<Ranked> {
    places(candidates)
        .map(|(row, doc_id, place)| Ranked {
            row,
            doc_id,
            vector: None,
            text: Some(place),
            rerank: None,
            score: place.value,
        })
        .collect()
}

fn places(candidates: Vec<Candidate>) -> impl Iterator<Item = (u64, String, Place)> {
    candidates
        .into_iter()
        .zip(1..)
        .map(|(candidate, rank)| (candidate.row, candidate.doc_id, Place { rank, value: candidate.value }))
}

/// Both rankings as one. Rows with equal scores stand in the order of their rows, so that a search gives the same each
/// time.
pub(crate) fn fuse(vectors: Vec<Ranked>, words: Vec<Ranked>, fusion: Fusion) -> Vec<Ranked> {
    let best = words.first().map_or(1.0, |first| first.score).max(f32::MIN_POSITIVE);
    let mut scores: HashMap<u64, f32> = HashMap::new();
    let mut fused: HashMap<u64, Ranked> = HashMap::new();
    let share = |ranked: &Ranked| match (fusion, ranked.text) {
        (Fusion::ReciprocalRank, _) => {
            let place = ranked.vector.or(ranked.text);
            place.map_or(0.0, |place| 1.0 / (RANK_CONSTANT + place.rank as f32))
        }
        (Fusion::Weighted { vector }, None) => vector * ranked.score,
        (Fusion::Weighted { vector }, Some(_)) => (1.0 - vector) * ranked.score / best,
    };
    for ranked in vectors.into_iter().chain(words) {
        *scores.entry(ranked.row).or_default() += share(&ranked);
        fused
            .entry(ranked.row)
            .and_modify(|known| {
                known.vector = known.vector.or(ranked.vector);
                known.text = known.text.or(ranked.text);
            })
            .or_insert(ranked);
    }
    let with_score = |ranked: Ranked| Ranked { score: scores[&ranked.row], ..ranked };
    let mut fused: Vec<Ranked> = fused.into_values().map(with_score).collect();
    fused.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(rows: &[(u64, f32)]) -> Vec<Candidate> {
        rows.iter().map(|&(row, value)| Candidate { row, doc_id: row.to_string(), value }).collect()
    }

    fn order(ranked: &[Ranked]) -> Vec<u64> {
        ranked.iter().map(|ranked| ranked.row).collect()
    }

    #[test]
    fn a_row_in_both_rankings_comes_first() {
        let vectors = of_vectors(list(&[(1, 0.1), (2, 0.2), (3, 0.3)]), |distance| 1.0 - distance);
        let words = of_words(list(&[(9, 8.0), (3, 7.0)]));
        let fused = fuse(vectors, words, Fusion::ReciprocalRank);
        assert_eq!(order(&fused), [3, 1, 9, 2]);
        assert!((fused[0].score - (1.0 / 63.0 + 1.0 / 62.0)).abs() < 1e-7);
        assert_eq!(fused[0].vector, Some(Place { rank: 3, value: 0.3 }));
        assert_eq!(fused[0].text, Some(Place { rank: 2, value: 7.0 }));
        assert_eq!((fused[2].vector, fused[2].text.map(|place| place.rank)), (None, Some(1)));
    }

    #[test]
    fn weights_choose_between_meaning_and_words() {
        let vectors = || of_vectors(list(&[(1, 0.1), (2, 0.5)]), |distance| 1.0 - distance);
        let words = || of_words(list(&[(2, 4.0), (3, 1.0)]));
        let weighted = |vector| fuse(vectors(), words(), Fusion::Weighted { vector });
        assert_eq!(order(&weighted(1.0)), [1, 2, 3]);
        assert_eq!(order(&weighted(0.0)), [2, 3, 1]);
        assert!((weighted(0.5)[0].score - (0.5 * 0.5 + 0.5)).abs() < 1e-6);
    }

    #[test]
    fn nothing_fused_with_nothing_is_nothing() {
        assert!(fuse(Vec::new(), Vec::new(), Fusion::ReciprocalRank).is_empty());
    }
}
