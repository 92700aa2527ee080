//! `POST /v1/search`: the best rows for a query.

use std::time::Instant;

use axum::{Json, extract::State, routing::post};
use polylance_search::{Effort, FusionKind, HitScores, Hits, Query, RankedBy, SearchMode, SearchRequest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{elapsed::milliseconds_since, route::Route};
use crate::{
    error::ApiError,
    executor::RequestClass,
    extract::{JsonBody, null_is_absent},
    json::rows,
    limits::Limits,
    openapi::Operation,
    state::App,
    statement::check_condition,
};

/// The largest `nprobes` and `ef`, because an index is searched in memory.
const MAX_INDEX_EFFORT: usize = 1 << 16;

/// The largest `refine`.
const MAX_REFINE: u32 = 1000;

/// A search for a query, a vector or rows similar to a row.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchParams {
    /// The table; optional if there is only one.
    table: Option<String>,
    /// A text, in any language that the model knows.
    query: Option<String>,
    /// A vector that was made like those of the table.
    vector: Option<Vec<f32>>,
    /// A row: the search finds similar ones.
    like: Option<LikeRow>,
    /// By default `hybrid` for a text query if the table has a full-text index, otherwise `vector`.
    mode: Option<SearchMode>,
    /// The maximum number of hits.
    #[serde(default = "default_k")]
    k: usize,
    /// A SQL condition, applied before ranking.
    #[serde(rename = "where")]
    condition: Option<String>,
    /// One hit per document: its best chunk.
    #[serde(default)]
    by_document: bool,
    /// How a hybrid search combines its two rankings.
    #[serde(default)]
    fusion: FusionKind,
    /// For score fusion: the factor of the full-text part, by default 0.15.
    text_weight: Option<f32>,
    /// For weighted fusion: from 0 (full-text only) to 1 (vectors only), by default 0.5.
    vector_weight: Option<f32>,
    /// The minimum number of partitions of a vector index that are searched.
    nprobes: Option<usize>,
    /// Candidates per hit that are ranked again by their exact distance.
    refine: Option<u32>,
    /// Candidates that the search of a graph index keeps.
    ef: Option<usize>,
    /// Whether the reranker orders the best hits again.
    #[serde(default)]
    rerank: bool,
    /// Columns of the rows; by default all.
    columns: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LikeRow {
    doc_id: String,
    #[serde(default, deserialize_with = "null_is_absent")]
    chunk: u32,
}

fn default_k() -> usize {
    10
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SearchResponse {
    pub(super) table: String,
    version: u64,
    pub(super) mode: SearchMode,
    took_ms: f64,
    /// Best first.
    pub(super) hits: Vec<SearchHit>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SearchHit {
    /// From 1.
    pub(super) rank: usize,
    /// Higher is better; null for a row that the reranker could not read.
    pub(super) score: Option<f32>,
    /// The rank by vector, if vector search found the row.
    vector: Option<VectorRank>,
    /// The rank by text, if full-text search found the row.
    text: Option<TextRank>,
    /// The parts of a hybrid search's score, which is their sum.
    parts: Option<ScoreParts>,
    /// The rank by the reranker.
    rerank: Option<RerankerRank>,
    /// The table's columns without the vector.
    #[schemars(with = "Map<String, Value>")]
    pub(super) row: Box<RawValue>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct VectorRank {
    rank: u32,
    distance: f32,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TextRank {
    rank: u32,
    bm25: f32,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ScoreParts {
    /// The contribution of the vector.
    vector: f32,
    /// The contribution of the text.
    text: f32,
    /// The distance, also of a hit that only full-text search found; null if the fusion does not need it.
    distance: Option<f32>,
    /// The BM25 score, also of a hit that only vector search found; null for a hit with none of the query's words.
    bm25: Option<f32>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RerankerRank {
    rank: usize,
    score: f32,
}

pub(super) fn route() -> Route {
    let operation =
        Operation::post("/v1/search", "The best rows for a query").body::<SearchParams>().response::<SearchResponse>();
    Route::new(operation, post(handler))
}

async fn handler(
    State(app): State<App>,
    JsonBody(params): JsonBody<SearchParams>,
) -> Result<Json<SearchResponse>, ApiError> {
    Box::pin(search(&app, params)).await.map(Json)
}

/// The search, within the limits.
pub(super) async fn search(app: &App, params: SearchParams) -> Result<SearchResponse, ApiError> {
    let started = Instant::now();
    let table = params.table.clone();
    let request = params.request(&app.limits)?;
    let class = if request.filter.is_some() { RequestClass::FilteredSearch } else { RequestClass::Search };
    let found = app.execute_on_table(class, table.as_deref(), async move |app, _, name, table| {
        if let Some(condition) = &request.filter {
            check_condition(condition, app.limits.max_statement_bytes)?;
        }
        let api_error = |error| ApiError::from_search(&error, Some(&name));
        let mode = table.mode_of(&request);
        let models = match mode {
            SearchMode::Text => app.models.without_embedder(),
            SearchMode::Vector | SearchMode::Hybrid => {
                app.models.for_contract(table.contract()).await.map_err(api_error)?
            }
        };
        let hits = to_hits(&Box::pin(table.search(&request, &models)).await.map_err(api_error)?)?;
        Ok(SearchResponse { version: table.version(), table: name, mode, took_ms: 0.0, hits })
    });
    let found = found.await?;
    Ok(SearchResponse { took_ms: milliseconds_since(started), ..found })
}

impl SearchParams {
    fn request(self, limits: &Limits) -> Result<SearchRequest, ApiError> {
        if self.k > limits.max_hits {
            let message = format!("k is {}: at most {} is allowed", self.k, limits.max_hits);
            return Err(ApiError::too_much("too_many_hits", message).param("k"));
        }
        let query = match (self.query, self.vector, self.like) {
            (Some(text), None, None) => Query::Text(text),
            (None, Some(vector), None) => Query::Vector(vector),
            (None, None, Some(LikeRow { doc_id, chunk })) => Query::Like { doc_id, chunk },
            _ => {
                let error = ApiError::bad("invalid_query", "exactly one of `query`, `vector` and `like` is required");
                return Err(error.param("query"));
            }
        };
        let (fusion, weight, param) = match (self.fusion, self.text_weight, self.vector_weight) {
            (kind @ FusionKind::Score, weight, None) => (kind, weight, "text_weight"),
            (kind @ FusionKind::Weighted, None, weight) => (kind, weight, "vector_weight"),
            (kind, None, None) => (kind, None, "fusion"),
            _ => {
                let message = "text_weight is for score fusion, vector_weight for weighted fusion";
                return Err(ApiError::bad("invalid_query", message).param("fusion"));
            }
        };
        let fusion = fusion.with_weight(weight);
        let fusion = fusion.map_err(|error| ApiError::bad("invalid_query", error.to_string()).param(param))?;
        let exceeds = |effort: Option<usize>| effort.is_some_and(|effort| effort > MAX_INDEX_EFFORT);
        if exceeds(self.nprobes) || exceeds(self.ef) || self.refine.is_some_and(|refine| refine > MAX_REFINE) {
            let message = format!("nprobes and ef are at most {MAX_INDEX_EFFORT}, refine at most {MAX_REFINE}");
            return Err(ApiError::too_much("too_much_effort", message).param("nprobes"));
        }
        Ok(SearchRequest {
            query,
            mode: self.mode,
            k: self.k,
            filter: self.condition.filter(|condition| !condition.trim().is_empty()),
            by_document: self.by_document,
            fusion,
            effort: Effort { nprobes: self.nprobes, refine: self.refine, ef: self.ef },
            rerank: self.rerank,
            columns: self.columns,
        })
    }
}

fn to_hits(hits: &Hits) -> Result<Vec<SearchHit>, ApiError> {
    let ranked = |by: RankedBy| Some((by.rank?, by.value));
    let hit = |(at, (row, scores)): (usize, (Box<RawValue>, &HitScores))| SearchHit {
        rank: at + 1,
        score: Some(scores.score).filter(|score| score.is_finite()),
        vector: scores.vector.and_then(ranked).map(|(rank, distance)| VectorRank { rank, distance }),
        text: scores.text.and_then(ranked).map(|(rank, bm25)| TextRank { rank, bm25 }),
        parts: scores.parts.map(|parts| ScoreParts {
            vector: parts.vector,
            text: parts.text,
            distance: scores.vector.map(|by| by.value),
            bm25: scores.text.map(|by| by.value),
        }),
        rerank: scores.rerank.map(|score| RerankerRank { rank: at + 1, score }),
        row,
    };
    Ok(rows(&hits.rows)?.into_iter().zip(&hits.scores).enumerate().map(hit).collect())
}
