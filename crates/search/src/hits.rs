//! The columns that a search adds to the rows it found.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float32Array, RecordBatch, UInt32Array},
    datatypes::{DataType, Field, FieldRef, Schema},
    error::ArrowError,
};

use crate::{
    SearchMode,
    ranking::{Place, Ranked},
};

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

/// Names that columns of places have: a table's own columns of these names are left out of hits.
pub(crate) const PLACES: [&str; 8] =
    [SCORE, VECTOR_RANK, DISTANCE, TEXT_RANK, BM25, VECTOR_SCORE, TEXT_SCORE, RERANK_SCORE];

/// The columns of places that a search of this mode adds, `score` last.
pub(crate) fn place_fields(mode: SearchMode, reranked: bool) -> Vec<FieldRef> {
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

/// `rows` with the places of `ranked`, which are theirs in the same order.
pub(crate) fn with_places(
    rows: &RecordBatch,
    ranked: &[Ranked],
    mode: SearchMode,
    reranked: bool,
) -> Result<RecordBatch, ArrowError> {
    let ranks = |place: fn(&Ranked) -> Option<Place>| -> ArrayRef {
        Arc::new(ranked.iter().map(|ranked| place(ranked).and_then(|place| place.rank)).collect::<UInt32Array>())
    };
    let values = |place: fn(&Ranked) -> Option<Place>| -> ArrayRef {
        Arc::new(ranked.iter().map(|ranked| place(ranked).map(|place| place.value)).collect::<Float32Array>())
    };
    let numbers = |number: fn(&Ranked) -> f32| -> ArrayRef {
        Arc::new(ranked.iter().map(|ranked| Some(number(ranked))).collect::<Float32Array>())
    };
    let fields = place_fields(mode, reranked);
    let added = fields.iter().map(|field| match field.name().as_str() {
        VECTOR_RANK => ranks(|ranked| ranked.vector),
        DISTANCE => values(|ranked| ranked.vector),
        TEXT_RANK => ranks(|ranked| ranked.text),
        BM25 => values(|ranked| ranked.text),
        VECTOR_SCORE => numbers(|ranked| ranked.parts.vector),
        TEXT_SCORE => numbers(|ranked| ranked.parts.text),
        RERANK_SCORE => Arc::new(ranked.iter().map(|ranked| ranked.rerank).collect::<Float32Array>()),
        _ => numbers(|ranked| ranked.score),
    });
    let columns = rows.columns().iter().cloned().chain(added).collect();
    let schema = rows.schema();
    let fields: Vec<FieldRef> = schema.fields().iter().cloned().chain(fields.iter().cloned()).collect();
    RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())), columns)
}
