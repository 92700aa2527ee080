//! Where a run writes, and when it commits.

use std::collections::HashMap;

use arrow::datatypes::{FieldRef, SchemaRef};
use polylance_schema::{CommitPolicy, Contract, TextColumn, table_schema, with_heads};

use super::identity::TableMark;

/// A table to write to, and everything a commit to it must say.
#[derive(Debug, Clone)]
pub struct TableTarget {
    /// A local path, `s3://`, `gs://` or `az://` address.
    pub uri: String,
    /// Whether the chunks' text is stored.
    pub text: TextColumn,
    /// When windows close.
    pub commit: CommitPolicy,
    /// How the vectors were made.
    pub contract: Contract,
    /// The kept source columns.
    pub keep: Vec<FieldRef>,
    /// Columns, with their contracts, of the heads that are asked in the pass of the embedding. In a table that
    /// exists they must be declared, see [`crate::declare_columns`].
    pub heads: Vec<FieldRef>,
    /// The run, written into every row and every commit.
    pub run_id: String,
    /// The table that the run has read, and how it makes its content hashes.
    pub mark: TableMark,
    /// More to write into every commit.
    pub properties: HashMap<String, String>,
}

impl TableTarget {
    /// The table's columns, with the contract in the metadata.
    pub fn schema(&self) -> SchemaRef {
        let schema = with_heads(&table_schema(&self.keep, self.contract.dim, self.text), &self.heads);
        schema.as_ref().clone().with_metadata(self.contract.to_metadata()).into()
    }
}
