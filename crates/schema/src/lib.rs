//! The layout of a polylance table: column names, Arrow schemas, and the contracts of embeddings and annotation columns.
//!
//! Every other crate uses these names; this one imports no other crate of the workspace.

pub mod columns;
mod content;
mod contract;
mod explain;
pub mod full_text;
mod heads;
mod quarantine;
pub mod search;
mod shard;
mod tables;
mod vocabulary;

pub use content::{ContentRule, UnknownRule};
pub use contract::{ChunkMode, Chunking, Contract, ContractDifference, ContractError, Cut, Pooling, Prompts};
pub use explain::{ErrorClass, Explain, STORE_REFUSAL_HINT, with_causes, without_source_locations};
pub use heads::{Aggregation, Generation, HeadContract, HeadContractError, HeadInputs, Scores, TaskSpec};
pub use quarantine::{RecordKind, file_tail_error};
pub use shard::{Shard, ShardError};
pub use tables::{
    TextColumn, annotated_schema, chunk_schema, encoded_schema, error_fields, kept_fields, key_schema,
    quarantine_schema, source_schema, table_schema, tokenized_schema, with_heads,
};
pub use vocabulary::{
    CommitPolicy, DEFAULT_MAX_TEXT_BYTES, DEFAULT_MEMORY_BYTES, Dtype, IndexKind, MaintenancePolicy, Metric, OnMissing,
    SourceFormat, Stage, TaskName, UnknownWord, WriteConcurrency,
};
