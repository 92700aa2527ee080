//! Vector, full-text and hybrid search, and SQL, over Lance tables.
//!
//! A query is embedded under the contract in the table it searches, so that its vector is comparable with the table's.
//! SQL reads tables and never writes them.

mod describe;
mod embed;
mod error;
mod filter;
mod history;
mod limits;
mod request;
mod scores;
mod search;
mod sql;
mod table;
mod tune;

pub use describe::{ColumnDescription, IndexDescription, TableDescription, VersionDescription, describe};
pub use embed::{InputKind, embed};
pub use error::{ColumnError, QueryError, SearchError};
pub use filter::{parse_condition, plan_condition};
pub use history::{History, QuarantineCount};
pub use request::{Effort, Fusion, FusionKind, Models, Query, SearchMode, SearchRequest};
pub use scores::{
    BM25, DISTANCE, HitScores, RERANK_SCORE, RankedBy, SCORE, ScoreParts, TEXT_RANK, TEXT_SCORE, VECTOR_RANK,
    VECTOR_SCORE,
};
pub use search::Hits;
pub use sql::{LoadedModels, ModelSource, SqlRuntime, SqlSession, default_table_name};
pub use table::{SearchTable, table_contract};
pub use tune::{MeasuredEffort, TuneReport, TuneRequest};
