//! `POST /v1/search`: the best rows for a query.

use std::time::Instant;

use axum::{Json, extract::State, routing::post};
use polylance_search::{Effort, FusionKind, HitScores, Hits, Query, RankedBy, SearchMode, SearchRequest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::Route;
use crate::{
    Limits,
    error::ApiError,
    extract::{JsonBody, null_is_absent},
    openapi::Operation,
    rows::rows,
    state::App,
    statement,
    work::Kind,
};

/// What to look for, in one of three ways, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Search {
    /// The table; may be left out when there is only one.
    table: Option<String>,
    /// Words, in any language that the model knows.
    query: Option<String>,
    /// A vector that was made as the table's are.
    vector: Option<Vec<f32>>,
    /// A row whose like is looked for.
    like: Option<Like>,
    /// By default hybrid for words where the text is indexed, else vector.
    mode: Option<SearchMode>,
    /// Hits at most.
    #[serde(default = "ten")]
    k: usize,
    /// A SQL condition that every hit fulfils.
    #[serde(rename = "where")]
    condition: Option<String>,
    /// One hit a document: its best chunk.
    #[serde(default)]
    by_document: bool,
    /// How a hybrid search makes one ranking of two.
    #[serde(default)]
    fusion: FusionKind,
    /// For score fusion: what the words' part is multiplied by, 0.15 by default.
    text_weight: Option<f32>,
    /// For weighted fusion, from 0 (words alone) to 1 (vectors alone), 0.5 by default.
    vector_weight: Option<f32>,
    /// Partitions of a vector index that are searched at least.
    nprobes: Option<usize>,
    /// Candidates per hit whose exact distance decides.
    refine: Option<u32>,
    /// Candidates that a graph keeps while it is walked.
    ef: Option<usize>,
    /// Whether the reranker orders the best anew.
    #[serde(default)]
    rerank: bool,
    /// Columns of the rows; all of them when left out.
    columns: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Like {
    doc_id: String,
    #[serde(default, deserialize_with = "null_is_absent")]
    chunk: u32,
}

fn ten() -> usize {
    10
}

#[derive(Debug, Serialize, JsonSchema)]
struct Found {
    table: String,
    version: u64,
    mode: SearchMode,
    took_ms: f64,
    /// Best first.
    hits: Vec<Hit>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Hit {
    /// From 1.
    rank: usize,
    /// More is better; null for a row that the reranker could not read.
    score: Option<f32>,
    /// Its place by its vector, where that found it.
    vector: Option<VectorPlace>,
    /// Its place by its words, where those found it.
    text: Option<TextPlace>,
    /// What a hybrid search's score is the sum of.
    parts: Option<Parts>,
    /// Its place by the reranker.
    rerank: Option<RerankPlace>,
    /// The table's columns without the vector.
    #[schemars(with = "Map<String, Value>")]
    row: Box<RawValue>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct VectorPlace {
    rank: u32,
    distance: f32,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TextPlace {
    rank: u32,
    bm25: f32,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Parts {
    /// What the vectors give to the score.
    vector: f32,
    /// What the words give to it.
    text: f32,
    /// The distance, also of a hit that only its words found; null where the fusion does not need it.
    distance: Option<f32>,
    /// The BM25 score, also of a hit that only its vector found; null for a hit with none of the words.
    bm25: Option<f32>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RerankPlace {
    rank: usize,
    score: f32,
}

pub(super) fn route() -> Route {
    Route {
        operation: Operation::post("/v1/search", "The best rows for a query").body::<Search>().answer::<Found>(),
        handler: post(search),
    }
}

async fn search(State(app): State<App>, JsonBody(asked): JsonBody<Search>) -> Result<Json<Found>, ApiError> {
    let started = Instant::now();
    let table = asked.table.clone();
    let request = asked.request(&app.limits)?;
    let kind = if request.filter.is_some() { Kind::Condition } else { Kind::Search };
    let found = app.work_on(kind, table.as_deref(), async move |app, _, name, table| {
        if let Some(condition) = &request.filter {
            statement::check_condition(condition, app.limits.statement)?;
        }
        let refused = |error| ApiError::of_search(&error, Some(&name));
        let mode = table.mode_of(&request);
        let models = match mode {
            SearchMode::Text => app.models.of_words(),
            SearchMode::Vector | SearchMode::Hybrid => app.models.of(table.contract()).await.map_err(refused)?,
        };
        let hits = shown(&Box::pin(table.search(&request, &models)).await.map_err(refused)?)?;
        Ok(Found { version: table.version(), table: name, mode, took_ms: 0.0, hits })
    });
    let found = found.await?;
    Ok(Json(Found { took_ms: milliseconds(started), ..found }))
}

/// Since then, to the microsecond.
pub(super) fn milliseconds(started: Instant) -> f64 {
    started.elapsed().as_micros() as f64 / 1000.0
}

impl Search {
    fn request(self, limits: &Limits) -> Result<SearchRequest, ApiError> {
        if self.k > limits.hits {
            let message = format!("k is {}, and may be {} at most", self.k, limits.hits);
            return Err(ApiError::too_much("too_many_hits", message).param("k"));
        }
        let query = match (self.query, self.vector, self.like) {
            (Some(words), None, None) => Query::Text(words),
            (None, Some(vector), None) => Query::Vector(vector),
            (None, None, Some(Like { doc_id, chunk })) => Query::Like { doc_id, chunk },
            _ => {
                let error = ApiError::bad("invalid_query", "one of `query`, `vector` and `like` says what to look for");
                return Err(error.param("query"));
            }
        };
        let (fusion, weight, param) = match (self.fusion, self.text_weight, self.vector_weight) {
            (kind @ FusionKind::Score, weight, None) => (kind, weight, "text_weight"),
            (kind @ FusionKind::Weighted, None, weight) => (kind, weight, "vector_weight"),
            (kind, None, None) => (kind, None, "fusion"),
            _ => {
                let message = "text_weight belongs to score fusion, vector_weight to weighted fusion";
                return Err(ApiError::bad("invalid_query", message).param("fusion"));
            }
        };
        let fusion = fusion.with_weight(weight);
        let fusion = fusion.map_err(|error| ApiError::bad("invalid_query", error.to_string()).param(param))?;
        // An index is searched in memory: what is asked of it is bounded too.
        let bounded = |asked: Option<usize>, most: usize| asked.is_none_or(|asked| asked <= most);
        if !bounded(self.nprobes, 1 << 16)
            || !bounded(self.ef, 1 << 16)
            || !bounded(self.refine.map(|n| n as usize), 1000)
        {
            let message = "nprobes and ef may be 65536 at most, refine 1000";
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

fn shown(hits: &Hits) -> Result<Vec<Hit>, ApiError> {
    let ranked = |by: RankedBy| Some((by.rank?, by.value));
    let hit = |(at, (row, scores)): (usize, (Box<RawValue>, &HitScores))| Hit {
        rank: at + 1,
        score: Some(scores.score).filter(|score| score.is_finite()),
        vector: scores.vector.and_then(ranked).map(|(rank, distance)| VectorPlace { rank, distance }),
        text: scores.text.and_then(ranked).map(|(rank, bm25)| TextPlace { rank, bm25 }),
        parts: scores.parts.map(|parts| Parts {
            vector: parts.vector,
            text: parts.text,
            distance: scores.vector.map(|by| by.value),
            bm25: scores.text.map(|by| by.value),
        }),
        rerank: scores.rerank.map(|score| RerankPlace { rank: at + 1, score }),
        row,
    };
    Ok(rows(&hits.rows)?.into_iter().zip(&hits.scores).enumerate().map(hit).collect())
}
