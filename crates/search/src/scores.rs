//! The scores of hits, and the columns that hold them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};

use crate::SearchMode;

/// The column by which hits are ordered, best first. Float32.
pub const SCORE: &str = "score";
/// The hit's rank in the vector search, from 1; null where only the full-text search found it. UInt32.
pub const VECTOR_RANK: &str = "vector_rank";
/// The distance of the hit's vector, as Lance names it. Float32.
pub const DISTANCE: &str = "_distance";
/// The hit's rank in the full-text search, from 1; null where only the vector search found it. UInt32.
pub const TEXT_RANK: &str = "text_rank";
/// The hit's BM25 score. Float32.
pub const BM25: &str = "bm25";
/// The vector part of a hybrid score. Float32.
pub const VECTOR_SCORE: &str = "vector_score";
/// The full-text part of a hybrid score. Float32.
pub const TEXT_SCORE: &str = "text_score";
/// The cross-encoder's score. Float32.
pub const RERANK_SCORE: &str = "rerank_score";

/// All columns of scores. A table's own columns of these names are left out of hits.
pub(crate) const SCORE_COLUMNS: [&str; 8] =
    [SCORE, VECTOR_RANK, DISTANCE, TEXT_RANK, BM25, VECTOR_SCORE, TEXT_SCORE, RERANK_SCORE];

/// The columns of scores that a search of this mode adds, `score` last.
pub(crate) fn score_fields(mode: SearchMode, reranked: bool) -> Vec<FieldRef> {
    let field = |name: &str, data_type: DataType, nullable| Arc::new(Field::new(name, data_type, nullable));
    let mut fields = Vec::new();
    let hybrid = mode == SearchMode::Hybrid;
    if mode != SearchMode::Text {
        fields.push(field(VECTOR_RANK, DataType::UInt32, hybrid));
        fields.push(field(DISTANCE, DataType::Float32, hybrid));
    }
    if mode != SearchMode::Vector {
        fields.push(field(TEXT_RANK, DataType::UInt32, hybrid));
        fields.push(field(BM25, DataType::Float32, hybrid));
    }
    if hybrid {
        fields.push(field(VECTOR_SCORE, DataType::Float32, false));
        fields.push(field(TEXT_SCORE, DataType::Float32, false));
    }
    if reranked {
        fields.push(field(RERANK_SCORE, DataType::Float32, true));
    }
    fields.push(field(SCORE, DataType::Float32, false));
    fields
}

/// A row's rank and value in one of the two rankings of a search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankedBy {
    /// From 1; `None` for a row that only the other ranking found.
    pub rank: Option<u32>,
    /// A distance or a BM25 score.
    pub value: f32,
}

/// The summands of a hybrid score.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ScoreParts {
    /// The part of the vector search.
    pub vector: f32,
    /// The part of the full-text search.
    pub text: f32,
}

/// The scores of a hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HitScores {
    /// Orders the hits, higher first. Minus infinity for a row that the reranker could not read.
    pub score: f32,
    /// Rank and distance in the vector search; `None` where no distance was computed.
    pub vector: Option<RankedBy>,
    /// Rank and BM25 score in the full-text search; `None` for a row with none of the words, and in a vector search.
    pub text: Option<RankedBy>,
    /// The summands of a hybrid score; `None` in other modes.
    pub parts: Option<ScoreParts>,
    /// The cross-encoder's score; `None` without one, and for a row that it could not read.
    pub rerank: Option<f32>,
}
