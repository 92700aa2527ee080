//! Requests: the query, the mode, and the options of a search.

use std::{fmt, str::FromStr};

use polylance_backend::{AnnotatorHandle, BackendHandle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{QueryError, SearchError};

/// How a table is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SearchMode {
    /// Semantic search: by the distance of the vectors.
    Vector,
    /// Full-text search: BM25 over the text.
    Text,
    /// Both rankings, fused.
    Hybrid,
}

impl SearchMode {
    /// All modes, as they are written.
    pub const NAMES: [&'static str; 3] = ["vector", "text", "hybrid"];
}

impl fmt::Display for SearchMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

impl FromStr for SearchMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "vector" => Ok(Self::Vector),
            "text" => Ok(Self::Text),
            "hybrid" => Ok(Self::Hybrid),
            other => Err(format!("expected one of {}, not `{other}`", Self::NAMES.join(", "))),
        }
    }
}

/// The query that rows are compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// A text in any language that the model knows; embedded under the table's contract.
    Text(String),
    /// A vector that was made under the table's contract.
    Vector(Vec<f32>),
    /// A row of the table: finds similar rows of other documents.
    Like {
        /// The row's document.
        doc_id: String,
        /// The row's chunk.
        chunk: u32,
    },
}

/// How two rankings become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fusion {
    /// The cosine, plus `text_weight` · (BM25 / the query's own BM25 score)^1.5.
    Score {
        /// From 0 (the vector search alone); at 1 the full-text search decides.
        text_weight: f32,
    },
    /// Reciprocal rank fusion: the sum of 1 / (60 + rank). Cormack, Clarke and Büttcher, SIGIR 2009.
    ReciprocalRank,
    /// `vector` · the score of the vector search + (1 − `vector`) · BM25 / the best hit's BM25.
    Weighted {
        /// From 0 (the full-text search alone) to 1 (the vector search alone).
        vector: f32,
    },
}

impl Fusion {
    /// With this weight a hybrid search is no worse than the better of its parts, across languages and within one.
    pub const TEXT_WEIGHT: f32 = 0.15;
}

impl Default for Fusion {
    fn default() -> Self {
        Self::Score { text_weight: Self::TEXT_WEIGHT }
    }
}

/// The fusions by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FusionKind {
    /// The cosine plus the weighted share of the query that the row contains.
    #[default]
    Score,
    /// Reciprocal rank fusion.
    Rrf,
    /// The weighted mean of the two scores.
    Weighted,
}

impl FusionKind {
    /// All fusions, as they are written.
    pub const NAMES: [&'static str; 3] = ["score", "rrf", "weighted"];

    /// The fusion with this weight, or its default weight: of the text in a score fusion, of the vectors in a weighted
    /// one.
    ///
    /// # Errors
    /// [`QueryError::WeightOfRankFusion`].
    pub fn with_weight(self, weight: Option<f32>) -> Result<Fusion, SearchError> {
        match (self, weight) {
            (Self::Score, weight) => Ok(Fusion::Score { text_weight: weight.unwrap_or(Fusion::TEXT_WEIGHT) }),
            (Self::Rrf, None) => Ok(Fusion::ReciprocalRank),
            (Self::Rrf, Some(_)) => Err(QueryError::WeightOfRankFusion.into()),
            (Self::Weighted, weight) => Ok(Fusion::Weighted { vector: weight.unwrap_or(0.5) }),
        }
    }
}

impl FromStr for FusionKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "score" => Ok(Self::Score),
            "rrf" => Ok(Self::Rrf),
            "weighted" => Ok(Self::Weighted),
            other => Err(format!("expected one of {}, not `{other}`", Self::NAMES.join(", "))),
        }
    }
}

/// How much of a vector index is searched. `None` stands for the tuned value in the table, else for a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Effort {
    /// Minimum number of partitions to search; more are searched while they hold fewer than `k` hits.
    pub nprobes: Option<usize>,
    /// Candidates per hit that are re-scored with exact distances.
    pub refine: Option<u32>,
    /// Candidates that the search of a graph (HNSW) keeps.
    pub ef: Option<usize>,
}

impl Effort {
    /// This effort, with the values of `other` where it has none.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { nprobes: self.nprobes.or(other.nprobes), refine: self.refine.or(other.refine), ef: self.ef.or(other.ef) }
    }
}

/// One search of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchRequest {
    /// The query.
    pub query: Query,
    /// `None` selects hybrid search for a text query when the table has a full-text index, else vector search.
    pub mode: Option<SearchMode>,
    /// Maximum number of hits.
    pub k: usize,
    /// A SQL condition on the table's columns. It filters before ranking, so there are `k` hits whenever that many rows
    /// match.
    pub filter: Option<String>,
    /// Whether only the best chunk of each document is a hit.
    pub by_document: bool,
    /// How a hybrid search fuses its rankings.
    pub fusion: Fusion,
    /// How much of a vector index is searched.
    pub effort: Effort,
    /// Whether [`Models::reranker`] reorders the best candidates.
    pub rerank: bool,
    /// The columns to read, in this order. `None` reads every column that a hit can show.
    pub columns: Option<Vec<String>>,
}

impl SearchRequest {
    /// The `k` best hits of a text query, with defaults for everything else.
    pub fn text(query: impl Into<String>, k: usize) -> Self {
        Self {
            query: Query::Text(query.into()),
            mode: None,
            k,
            filter: None,
            by_document: false,
            fusion: Fusion::default(),
            effort: Effort::default(),
            rerank: false,
            columns: None,
        }
    }
}

/// The models that a search may need.
#[derive(Debug, Clone, Default)]
pub struct Models {
    /// The model of the table's contract; needed for a vector or hybrid search with a text query.
    pub embedder: Option<BackendHandle>,
    /// A cross-encoder; needed to rerank.
    pub reranker: Option<AnnotatorHandle>,
}
