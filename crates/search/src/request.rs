//! What to look for, and how.

use std::{fmt, str::FromStr};

use polylance_backend::{AnnotatorHandle, BackendHandle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::SearchError;

/// How rows are compared with the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SearchMode {
    /// By meaning: the distance of the vectors.
    Vector,
    /// By words: BM25 over the text.
    Text,
    /// By both, fused.
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

/// What rows are compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// Words in any language the model knows; embedded by the table's contract.
    Text(String),
    /// A vector made by the table's contract.
    Vector(Vec<f32>),
    /// A row of the table: what is like it, its own document left out.
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
    /// The cosine, plus `text_weight` times the query's share: BM25 divided by the score of the query's own words, to the
    /// power of 1.5.
    Score {
        /// From 0 (vectors alone); 1 lets words decide.
        text_weight: f32,
    },
    /// Reciprocal rank fusion: the sum of 1 / (60 + rank). Cormack, Clarke and Büttcher, SIGIR 2009.
    ReciprocalRank,
    /// The share `vector` of the vectors' score, and the rest of BM25 divided by the best hit's.
    Weighted {
        /// From 0 (words alone) to 1 (vectors alone).
        vector: f32,
    },
}

impl Fusion {
    /// The weight with which a hybrid search is no worse than the better of its parts, across languages and within one.
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
    /// The cosine plus the weighted share of the query's words.
    #[default]
    Score,
    /// By ranks.
    Rrf,
    /// By shares of two scores.
    Weighted,
}

impl FusionKind {
    /// All of them, as they are written.
    pub const NAMES: [&'static str; 3] = ["score", "rrf", "weighted"];

    /// The fusion, with its weight or the default one: of the text in a score fusion, of the vectors in a weighted one.
    ///
    /// # Errors
    /// [`SearchError::Query`] for a weight where there is none.
    pub fn with_weight(self, weight: Option<f32>) -> Result<Fusion, SearchError> {
        match (self, weight) {
            (Self::Score, weight) => Ok(Fusion::Score { text_weight: weight.unwrap_or(Fusion::TEXT_WEIGHT) }),
            (Self::Rrf, None) => Ok(Fusion::ReciprocalRank),
            (Self::Rrf, Some(_)) => Err(SearchError::Query("reciprocal rank fusion has no weight".to_owned())),
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

/// How much of a vector index is searched. What is `None` is as the table was tuned, else a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Effort {
    /// Partitions that are searched; more, as long as they have fewer hits than there are to be.
    pub nprobes: Option<usize>,
    /// Candidates per hit whose exact distance decides.
    pub refine: Option<u32>,
    /// Candidates a graph (HNSW) keeps while it is walked.
    pub ef: Option<usize>,
}

impl Effort {
    /// This effort, with `other`'s where it says nothing.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { nprobes: self.nprobes.or(other.nprobes), refine: self.refine.or(other.refine), ef: self.ef.or(other.ef) }
    }
}

/// One search of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchRequest {
    /// What rows are compared with.
    pub query: Query,
    /// How; `None` is hybrid for words when the table has a text index, else by meaning.
    pub mode: Option<SearchMode>,
    /// Hits at most.
    pub k: usize,
    /// A SQL condition on the table's columns that every hit fulfils; applied before the search, so that
    /// there are `k` hits whenever that many rows fulfil it.
    pub filter: Option<String>,
    /// One hit a document: its best chunk.
    pub by_document: bool,
    /// How a hybrid search fuses its rankings.
    pub fusion: Fusion,
    /// How much of a vector index is searched.
    pub effort: Effort,
    /// Whether the best candidates are ordered anew by [`Models::reranker`].
    pub rerank: bool,
    /// Columns of the rows, in this order: nothing else is read of them. `None` is all that a hit can show.
    pub columns: Option<Vec<String>>,
}

impl SearchRequest {
    /// The `k` best hits of a query in words, everything else as it is by default.
    pub fn words(query: impl Into<String>, k: usize) -> Self {
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

/// The models a search may need.
#[derive(Debug, Clone, Default)]
pub struct Models {
    /// Loaded for the table's contract; needed to search by meaning for words.
    pub embedder: Option<BackendHandle>,
    /// A cross-encoder; needed to rerank.
    pub reranker: Option<AnnotatorHandle>,
}
