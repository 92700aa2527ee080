//! What a search found, as rows with named scores and as one batch.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float32Array, RecordBatch, UInt32Array},
    datatypes::{DataType, Field, FieldRef, Schema},
    error::ArrowError,
};

use crate::{SearchMode, ranking::Ranked};

/// The column by which hits are ordered, best first. Float32.
pub const SCORE: &str = "score";
/// The hit's rank by its vector, from 1; null where only the words found it. UInt32.
pub const VECTOR_RANK: &str = "vector_rank";
/// The distance of the hit's vector, as Lance names it. Float32.
pub const DISTANCE: &str = "_distance";
/// The hit's rank by its words, from 1; null where only the vectors found it. UInt32.
pub const TEXT_RANK: &str = "text_rank";
/// The hit's BM25 score. Float32.
pub const BM25: &str = "bm25";
/// The part of a hybrid search's score that the vectors give. Float32.
pub const VECTOR_SCORE: &str = "vector_score";
/// The part of a hybrid search's score that the words give. Float32.
pub const TEXT_SCORE: &str = "text_score";
/// What the cross-encoder says. Float32.
pub const RERANK_SCORE: &str = "rerank_score";

/// Names that columns of scores have: a table's own columns of these names are left out of hits.
pub(crate) const SCORES: [&str; 8] =
    [SCORE, VECTOR_RANK, DISTANCE, TEXT_RANK, BM25, VECTOR_SCORE, TEXT_SCORE, RERANK_SCORE];

/// The columns of scores that a search of this mode adds, `score` last.
pub(crate) fn score_fields(mode: SearchMode, reranked: bool) -> Vec<FieldRef> {
    let number = |name: &str, of: DataType, nullable| Arc::new(Field::new(name, of, nullable));
    let mut fields = Vec::new();
    let hybrid = mode == SearchMode::Hybrid;
    if mode != SearchMode::Text {
        fields.push(number(VECTOR_RANK, DataType::UInt32, hybrid));
        fields.push(number(DISTANCE, DataType::Float32, hybrid));
    }
    if mode != SearchMode::Vector {
        fields.push(number(TEXT_RANK, DataType::UInt32, hybrid));
        fields.push(number(BM25, DataType::Float32, hybrid));
    }
    if hybrid {
        fields.push(number(VECTOR_SCORE, DataType::Float32, false));
        fields.push(number(TEXT_SCORE, DataType::Float32, false));
    }
    if reranked {
        fields.push(number(RERANK_SCORE, DataType::Float32, true));
    }
    fields.push(number(SCORE, DataType::Float32, false));
    fields
}

/// How one of the two rankings of a search sees a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankedBy {
    /// From 1; `None` for a row that only the other ranking found.
    pub rank: Option<u32>,
    /// A distance or a BM25 score.
    pub value: f32,
}

/// The summands of a hybrid search's score.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ScoreParts {
    /// What the vector adds.
    pub vector: f32,
    /// What the words add.
    pub text: f32,
}

/// The scores of a hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HitScores {
    /// By which hits are ordered: more is better. Minus infinity for a row that the reranker could not read.
    pub score: f32,
    /// By its vector, with the distance; `None` where that was not compared.
    pub vector: Option<RankedBy>,
    /// By its words, with the BM25 score; `None` where it has none of them or they were not searched for.
    pub text: Option<RankedBy>,
    /// What the score of a hybrid search is the sum of; `None` for other searches.
    pub parts: Option<ScoreParts>,
    /// What the cross-encoder says; `None` without one, and for a row that it could not read.
    pub rerank: Option<f32>,
}

/// What a search found, best first.
#[derive(Debug, Clone)]
pub struct Hits {
    /// The rows of the table, with the columns that were asked for.
    pub rows: RecordBatch,
    /// The scores of each row.
    pub scores: Vec<HitScores>,
    mode: SearchMode,
    reranked: bool,
}

impl Hits {
    pub(crate) fn new(rows: RecordBatch, ranked: &[Ranked], mode: SearchMode, reranked: bool) -> Self {
        let scores = |ranked: &Ranked| HitScores {
            score: ranked.score,
            vector: ranked.vector,
            text: ranked.text,
            parts: (mode == SearchMode::Hybrid).then_some(ranked.parts),
            rerank: ranked.rerank,
        };
        Self { rows, scores: ranked.iter().map(scores).collect(), mode, reranked }
    }

    /// The rows with a column for each score behind their own, `score` last.
    ///
    /// # Errors
    /// Never: the columns of the scores are as long as those of the rows.
    pub fn into_batch(self) -> Result<RecordBatch, ArrowError> {
        let Self { rows, scores, mode, reranked } = self;
        let ranks = |by: fn(&HitScores) -> Option<RankedBy>| -> ArrayRef {
            Arc::new(scores.iter().map(|hit| by(hit).and_then(|by| by.rank)).collect::<UInt32Array>())
        };
        let numbers = |number: fn(&HitScores) -> Option<f32>| -> ArrayRef {
            Arc::new(scores.iter().map(number).collect::<Float32Array>())
        };
        let fields = score_fields(mode, reranked);
        let added = fields.iter().map(|field| match field.name().as_str() {
            VECTOR_RANK => ranks(|hit| hit.vector),
            DISTANCE => numbers(|hit| Some(hit.vector?.value)),
            TEXT_RANK => ranks(|hit| hit.text),
            BM25 => numbers(|hit| Some(hit.text?.value)),
            VECTOR_SCORE => numbers(|hit| Some(hit.parts?.vector)),
            TEXT_SCORE => numbers(|hit| Some(hit.parts?.text)),
            RERANK_SCORE => numbers(|hit| hit.rerank),
            _ => numbers(|hit| Some(hit.score)),
        });
        let columns = rows.columns().iter().cloned().chain(added).collect();
        let schema = rows.schema();
        let fields: Vec<FieldRef> = schema.fields().iter().cloned().chain(fields.iter().cloned()).collect();
        RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())), columns)
    }
}
