//! The hits of a search, as rows with named scores and as one batch.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float32Array, RecordBatch, UInt32Array},
    datatypes::{FieldRef, Schema},
    error::ArrowError,
};

use super::ranking::Ranked;
use crate::{
    SearchMode,
    scores::{
        BM25, DISTANCE, HitScores, RERANK_SCORE, RankedBy, TEXT_RANK, TEXT_SCORE, VECTOR_RANK, VECTOR_SCORE,
        score_fields,
    },
};

/// The hits of a search, best first.
#[derive(Debug, Clone)]
pub struct Hits {
    /// The rows of the table, with the requested columns.
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

    /// The rows followed by a column for each score, `score` last.
    ///
    /// # Errors
    /// Never: the columns of scores are as long as the rows.
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
