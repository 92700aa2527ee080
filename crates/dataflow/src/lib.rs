//! The DataFusion operators from a source to embeddings.
//!
//! `SourceScanExec → DistinctIdExec → AntiJoinExec with the table's keys → TokenizeExec → EncodeExec`, one partition,
//! in the order of the source; `OnlyRowsExec` behind `DistinctIdExec` when only some rows are asked for. A row that
//! fails anywhere gets an `_error` and travels on: the write operator puts it into the quarantine. Operators are plain
//! specifications; they open files and find the backend in `execute`. A [`Stop`] ends a plan before its source ends.

mod annotate;
mod annotations;
mod anti_join;
mod batches;
mod content_hash;
mod coverage;
mod datafusion_error;
mod distinct;
mod encode;
mod error;
mod fingerprint;
mod format;
mod kind;
mod known_keys;
mod location;
mod only_rows;
mod operator;
mod plan;
mod progress;
mod read;
mod scan;
mod seams;
mod source;
mod source_ids;
mod stop;
mod tokenize;
mod value_bytes;
mod widen;

pub use annotate::AnnotateExec;
pub use anti_join::AntiJoinExec;
pub use coverage::Coverage;
pub use distinct::DistinctIdExec;
pub use encode::EncodeExec;
pub use error::SourceError;
pub use only_rows::{OnlyRowsExec, RowSet};
pub use plan::plan_embeddings;
pub use progress::{SourceProgress, progress};
pub use scan::SourceScanExec;
pub use source::{CsvSpec, Source, SourceSpec};
pub use source_ids::{AllIds, SourceIds};
pub use stop::{Stop, Stopped};
pub use tokenize::TokenizeExec;
