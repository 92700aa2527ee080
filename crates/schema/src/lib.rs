//! What a polylance table looks like: column names, Arrow schemas and the embedding contract.
//!
//! Every other crate speaks in these names, and this one knows no other crate.

pub mod columns;
mod contract;
mod tables;

pub use contract::{Chunking, Contract, ContractDifference, ContractError, Cut, Pooling, Prompts};
pub use tables::{
    TextColumn, encoded_schema, error_fields, key_schema, quarantine_schema, source_schema, table_schema,
    tokenized_schema,
};
