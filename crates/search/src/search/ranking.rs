//! Fusing two rankings into one.

use std::collections::HashMap;

use lance_linalg::distance::DistanceType;

use super::candidates::Candidate;
use crate::{
    Fusion,
    scores::{RankedBy, ScoreParts},
};

/// The constant of reciprocal rank fusion, as Cormack, Clarke and Büttcher chose it.
const RANK_CONSTANT: f32 = 60.0;

/// A row with its ranks, values and score.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) row: u64,
    pub(crate) doc_id: String,
    pub(crate) vector: Option<RankedBy>,
    pub(crate) text: Option<RankedBy>,
    pub(crate) parts: ScoreParts,
    pub(crate) rerank: Option<f32>,
    /// Orders the rows, higher first.
    pub(crate) score: f32,
}

impl Ranked {
    fn new(candidate: Candidate) -> Self {
        let Candidate { row, doc_id, .. } = candidate;
        Self { row, doc_id, vector: None, text: None, parts: ScoreParts::default(), rerank: None, score: 0.0 }
    }
}

/// The ranking of a vector search; `score` computes the score of a distance.
pub(crate) fn by_vector(candidates: Vec<Candidate>, score: impl Fn(f32) -> f32) -> Vec<Ranked> {
    let ranked = with_ranks(candidates).map(|(candidate, by)| {
        let score = score(by.value);
        Ranked { vector: Some(by), score, ..Ranked::new(candidate) }
    });
    ranked.collect()
}

/// The ranking of a full-text search: the score is BM25.
pub(crate) fn by_text(candidates: Vec<Candidate>) -> Vec<Ranked> {
    let ranked = with_ranks(candidates).map(|(candidate, by)| Ranked {
        text: Some(by),
        score: by.value,
        ..Ranked::new(candidate)
    });
    ranked.collect()
}

fn with_ranks(candidates: Vec<Candidate>) -> impl Iterator<Item = (Candidate, RankedBy)> {
    candidates.into_iter().zip(1..).map(|(candidate, rank)| {
        let by = RankedBy { rank: Some(rank), value: candidate.value };
        (candidate, by)
    })
}

/// The rows of both rankings, each once and without a score.
pub(crate) fn merge(vectors: Vec<Candidate>, texts: Vec<Candidate>) -> Vec<Ranked> {
    let mut merged = by_vector(vectors, |_| 0.0);
    let known: HashMap<u64, usize> = merged.iter().enumerate().map(|(at, ranked)| (ranked.row, at)).collect();
    for ranked in by_text(texts) {
        match known.get(&ranked.row) {
            Some(at) => merged[*at].text = ranked.text,
            None => merged.push(Ranked { score: 0.0, ..ranked }),
        }
    }
    merged
}

/// Scales distances and BM25 scores to numbers that can be added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    pub(crate) metric: DistanceType,
    /// The square of the length of the query's vector.
    pub(crate) query_norm: f32,
    /// The BM25 score of the query's own words; see [`super::bm25::self_score`].
    pub(crate) self_score: f32,
}

impl Scale {
    /// The cosine, with each metric, if all vectors have length 1. For other lengths it does not depend on a common factor
    /// of all vectors.
    fn similarity(self, distance: f32) -> f32 {
        let norm = self.query_norm.max(f32::MIN_POSITIVE);
        match self.metric {
            DistanceType::L2 => 1.0 - distance / (2.0 * norm),
            DistanceType::Dot => (1.0 - distance) / norm,
            _ => 1.0 - distance,
        }
    }

    /// The share of the query that a row contains. The exponent reduces the weight of a few common words: half of the
    /// query counts as a third.
    fn share_of_query(self, bm25: f32) -> f32 {
        (bm25 / self.self_score.max(f32::MIN_POSITIVE)).powf(1.5)
    }
}

/// The score of a distance in a vector search: higher is better.
pub(crate) fn vector_score(distance: f32, metric: DistanceType) -> f32 {
    match metric {
        DistanceType::L2 => 1.0 / (1.0 + distance),
        _ => 1.0 - distance,
    }
}

/// Scores and orders the rows. Rows with equal scores are ordered by row id, so that the result of a search is always the
/// same.
pub(crate) fn fuse(merged: &mut [Ranked], fusion: Fusion, scale: Scale) {
    let texts = merged.iter().filter_map(|ranked| ranked.text);
    let best_bm25 = texts.map(|text| text.value).fold(f32::MIN_POSITIVE, f32::max);
    let reciprocal_rank = |by: RankedBy| by.rank.map_or(0.0, |rank| 1.0 / (RANK_CONSTANT + rank as f32));
    for ranked in merged.iter_mut() {
        let (vector, text) = (ranked.vector, ranked.text);
        ranked.parts = match fusion {
            Fusion::Score { text_weight } => ScoreParts {
                vector: vector.map_or(0.0, |by| scale.similarity(by.value)),
                text: text.map_or(0.0, |by| text_weight * scale.share_of_query(by.value)),
            },
            Fusion::ReciprocalRank => {
                ScoreParts { vector: vector.map_or(0.0, reciprocal_rank), text: text.map_or(0.0, reciprocal_rank) }
            }
            Fusion::Weighted { vector: weight } => ScoreParts {
                vector: vector.map_or(0.0, |by| weight * vector_score(by.value, scale.metric)),
                text: text.map_or(0.0, |by| (1.0 - weight) * by.value / best_bm25),
            },
        };
        ranked.score = ranked.parts.vector + ranked.parts.text;
    }
    merged.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Scale = Scale { metric: DistanceType::Cosine, query_norm: 1.0, self_score: 10.0 };

    fn list(rows: &[(u64, f32)]) -> Vec<Candidate> {
        rows.iter().map(|&(row, value)| Candidate { row, doc_id: row.to_string(), value }).collect()
    }

    fn fused(vectors: &[(u64, f32)], texts: &[(u64, f32)], fusion: Fusion, scale: Scale) -> Vec<Ranked> {
        let mut merged = merge(list(vectors), list(texts));
        fuse(&mut merged, fusion, scale);
        merged
    }

    fn order(ranked: &[Ranked]) -> Vec<u64> {
        ranked.iter().map(|ranked| ranked.row).collect()
    }

    #[test]
    fn rank_fusion_prefers_a_row_in_both_rankings() {
        let vectors = [(1, 0.1), (2, 0.2), (3, 0.3)];
        let fused = fused(&vectors, &[(9, 8.0), (3, 7.0)], Fusion::ReciprocalRank, SCALE);
        assert_eq!(order(&fused), [3, 1, 9, 2]);
        assert!((fused[0].score - (1.0 / 63.0 + 1.0 / 62.0)).abs() < 1e-7);
        assert_eq!(fused[0].parts, ScoreParts { vector: 1.0 / 63.0, text: 1.0 / 62.0 });
        assert_eq!(fused[0].vector, Some(RankedBy { rank: Some(3), value: 0.3 }));
        assert_eq!(fused[0].text, Some(RankedBy { rank: Some(2), value: 7.0 }));
        assert_eq!((fused[2].vector, fused[2].text.and_then(|by| by.rank)), (None, Some(1)));
    }

    #[test]
    fn score_fusion_adds_the_weighted_text_part_to_the_cosine() {
        let by_score = |text_weight| {
            fused(&[(1, 0.10), (2, 0.12), (3, 0.5)], &[(3, 12.0), (2, 5.0)], Fusion::Score { text_weight }, SCALE)
        };
        // 0.90; 0.88 + 0.1 · (5 / 10)^1.5; 0.5 + 0.1 · (12 / 10)^1.5
        assert_eq!(order(&by_score(0.1)), [2, 1, 3]);
        for (ranked, score) in by_score(0.1).iter().zip([0.915_355, 0.9, 0.631_453]) {
            assert!((ranked.score - score).abs() < 1e-6, "{ranked:?}");
            assert_eq!(ranked.score, ranked.parts.vector + ranked.parts.text);
        }
        assert_eq!(order(&by_score(0.0)), [1, 2, 3]);
        assert_eq!(order(&by_score(1.0)), [3, 2, 1]);
    }

    #[test]
    fn similarity_is_the_cosine_with_every_metric() {
        // A cosine of 0.8, and vectors of length 1 and 3.
        for (metric, distance, query_norm) in [
            (DistanceType::Cosine, 0.2, 1.0),
            (DistanceType::Dot, 0.2, 1.0),
            (DistanceType::L2, 0.4, 1.0),
            (DistanceType::Cosine, 0.2, 9.0),
            (DistanceType::Dot, 1.0 - 7.2, 9.0),
            (DistanceType::L2, 3.6, 9.0),
        ] {
            let similarity = Scale { metric, query_norm, self_score: 1.0 }.similarity(distance);
            assert!((similarity - 0.8).abs() < 1e-6, "{metric} {query_norm}: {similarity}");
        }
    }

    #[test]
    fn weighted_fusion_moves_between_vector_and_text_order() {
        let weighted = |vector| fused(&[(1, 0.1), (2, 0.5)], &[(2, 4.0), (3, 1.0)], Fusion::Weighted { vector }, SCALE);
        assert_eq!(order(&weighted(1.0)), [1, 2, 3]);
        assert_eq!(order(&weighted(0.0)), [2, 3, 1]);
        assert!((weighted(0.5)[0].score - (0.5 * 0.5 + 0.5)).abs() < 1e-6);
    }

    #[test]
    fn fusing_two_empty_rankings_is_empty() {
        assert!(fused(&[], &[], Fusion::default(), SCALE).is_empty());
    }
}
