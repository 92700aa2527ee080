//! Search by meaning and by words, and SQL, over Lance tables.
//!
//! A query is embedded by the contract in the table it searches, so that its vector may be compared with
//! the table's. SQL reads tables and never writes them.

mod bm25;
mod candidates;
mod describe;
mod embed;
mod error;
mod filter;
mod history;
mod hits;
mod open;
mod ranking;
mod request;
mod search;
mod sql;
mod table;
mod tune;
mod words;

pub use describe::{ColumnDescription, IndexDescription, TableDescription, VersionDescription, describe};
pub use embed::{InputKind, embed};
pub use error::SearchError;
pub use filter::{parse_condition, plan_condition};
pub use history::{History, Quarantined};
pub use hits::{
    BM25, DISTANCE, HitScores, Hits, RERANK_SCORE, RankedBy, SCORE, ScoreParts, TEXT_RANK, TEXT_SCORE, VECTOR_RANK,
    VECTOR_SCORE,
};
pub use open::table_contract;
pub use request::{Effort, Fusion, FusionKind, Models, Query, SearchMode, SearchRequest};
pub use sql::{LoadedModels, ModelSource, SqlRuntime, SqlSession, default_table_name};
pub use table::SearchTable;
pub use tune::{TuneRequest, Tuned, Tuning};
