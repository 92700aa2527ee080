//! The DataFusion operators from a source to embeddings.
//!
//! `SourceScanExec → DistinctIdExec → AntiJoinExec with the table's keys → TokenizeExec → EncodeExec`, one partition,
//! in the order of the source; `FilterRowsExec` comes after `DistinctIdExec` when only some rows are requested. A row
//! that fails anywhere gets an `_error` and stays in the stream: the write operator puts it into the quarantine.
//! Operators are plain specifications; they open files and find the backend in `execute`. A [`ShutdownSignal`] ends a
//! plan before its source ends. [`operator`] and [`single_child_plan`] are for operators of other crates too.

mod annotations;
mod batches;
mod content_hash;
mod datafusion_error;
mod error;
mod exec;
mod plan;
mod progress;
mod read;
mod shutdown;
mod source;
mod spill;
mod store_refusal;

pub use error::{ColumnUse, SourceError, TableKind, store_hint};
pub use exec::{
    annotate::AnnotateExec,
    anti_join::{AntiJoinExec, KnownDocuments},
    distinct::{DistinctIdExec, RepeatedId},
    encode::EncodeExec,
    filter_rows::{FilterRowsExec, RowSet},
    operator,
    scan::SourceScanExec,
    tokenize::TokenizeExec,
};
pub use plan::{plan_embeddings, plan_split_embeddings, plan_split_ids};
pub use progress::{SourceProgress, SplitMetrics, progress};
pub use shutdown::{Cancelled, ShutdownSignal};
pub use source::{
    coverage::Coverage,
    input_types::{decode as decode_fields, encode as encode_fields},
    location::{object_address::ObjectAddress, stdin::stdin_bytes},
    open::Source,
    profile::{ColumnSample, SourceColumn, SourceProfile},
    spec::{CsvSpec, SourceSpec},
    split::{SourceSplit, Splits},
};
pub use spill::source_ids::{AllIds, SourceIds, SplitIdList, SplitIds};
pub use store_refusal::is_store_refusal;
