//! The table that a run writes to, and when the run commits.

use std::collections::HashMap;

use arrow::datatypes::{FieldRef, SchemaRef};
use polylance_schema::{CommitPolicy, Contract, TextColumn, table_schema, with_heads};

use super::identity::TableMark;

/// A table to write to, and the contents of the metadata of its commits.
#[derive(Debug, Clone)]
pub struct TableTarget {
    /// A local path, `s3://`, `gs://` or `az://` address.
    pub uri: String,
    /// Whether the chunks' text is stored.
    pub text: TextColumn,
    /// When windows close.
    pub commit: CommitPolicy,
    /// The contract of the vectors.
    pub contract: Contract,
    /// The kept source columns.
    pub keep: Vec<FieldRef>,
    /// Columns, with their contracts, of the heads that run in the pass of the embedding. An existing table must
    /// declare them, see [`crate::declare_columns`].
    pub heads: Vec<FieldRef>,
    /// The id of the run, written to every row and every commit.
    pub run_id: String,
    /// The identity of the table that the run has opened, and the rule of its content hashes.
    pub mark: TableMark,
    /// More properties for every commit.
    pub properties: HashMap<String, String>,
}

impl TableTarget {
    /// The table's columns, with the contract in the metadata.
    pub fn schema(&self) -> SchemaRef {
        let schema = with_heads(&table_schema(&self.keep, self.contract.dim, self.text), &self.heads);
        schema.as_ref().clone().with_metadata(self.contract.to_metadata()).into()
    }
}
