//! What to look for, and how.

use std::{fmt, str::FromStr};

use polylance_backend::{AnnotatorHandle, BackendHandle};
use serde::{Deserialize, Serialize};

/// How rows are compared with the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Fusion {
    /// Reciprocal rank fusion: the sum of 1 / (60 + rank). Cormack, Clarke and Büttcher, SIGIR 2009.
    #[default]
    ReciprocalRank,
    /// The share `vector` of the vectors' score, and the rest of BM25 divided by the best hit's.
    Weighted {
        /// From 0 (words alone) to 1 (meaning alone).
        vector: f32,
    },
}

/// How much of a vector index is searched. What is `None` is as the table was tuned, else a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Effort {
    /// Partitions that are searched.
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
