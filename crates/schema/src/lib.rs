//! What a polylance table looks like: column names, Arrow schemas, the embedding contract and those of
//! annotation columns.
//!
//! Every other crate speaks in these names, and this one knows no other crate.

pub mod columns;
mod content;
mod contract;
mod explain;
mod heads;
mod quarantine;
pub mod search;
mod tables;
mod vocabulary;
pub mod words;

pub use content::{ContentRule, UnknownRule};
pub use contract::{Chunking, Contract, ContractDifference, ContractError, Cut, Pooling, Prompts};
pub use explain::{ErrorClass, Explain, REFUSED_BY_STORE, says_refused, without_source_places};
pub use heads::{Aggregation, Generation, HeadContract, HeadContractError, HeadInputs, Scores, TaskSpec};
pub use quarantine::{RecordKind, file_tail_error};
pub use tables::{
    TextColumn, annotated_schema, chunk_schema, encoded_schema, error_fields, kept_fields, key_schema,
    quarantine_schema, source_schema, table_schema, tokenized_schema, with_heads,
};
pub use vocabulary::{
    CommitPolicy, DEFAULT_MAX_BYTES, DEFAULT_MEMORY, Dtype, IndexKind, Metric, OnMissing, SourceFormat, Stage,
    TaskName, UnknownWord, WriteConcurrency,
};
