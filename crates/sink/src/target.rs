//! Where a run writes, and when it commits.

use std::{collections::HashMap, time::Duration};

use arrow::datatypes::{FieldRef, SchemaRef};
use polylance_schema::{CommitPolicy, Contract, TextColumn, table_schema, with_heads};

use crate::{Retention, TableMark};

/// Keys of the transaction properties that every commit of a run carries.
pub mod properties {
    /// The run's id.
    pub const RUN_ID: &str = "polylance.run_id";
    /// What the run embeds, and how: a hash of source, columns and contract.
    pub const PIPELINE: &str = "polylance.pipeline";
    /// Documents the commit wrote.
    pub const DOCUMENTS: &str = "polylance.documents";
    /// Chunks (rows) the commit wrote.
    pub const CHUNKS: &str = "polylance.chunks";
    /// Older rows the commit took away.
    pub const REPLACED: &str = "polylance.replaced_rows";
    /// Documents that are no longer in the source, which the commit took out.
    pub const REMOVED: &str = "polylance.removed_documents";
    /// First document of the commit, as `source#row`.
    pub const SOURCE_FIRST: &str = "polylance.source_first";
    /// Last document of the commit, as `source#row`.
    pub const SOURCE_LAST: &str = "polylance.source_last";
    /// The annotation column that the commit fills.
    pub const COLUMN: &str = "polylance.column";
    /// Rows that got a value in that column.
    pub const ANNOTATED: &str = "polylance.annotated_rows";
}

/// How long a window may be open: its first data file must be committed long before a cleanup may take it for one that a
/// killed run left behind. 0, or more than half an hour, is half an hour.
pub(crate) fn longest_window(commit: CommitPolicy) -> Duration {
    let most = Retention::SAFE_AGE / 2;
    if commit.seconds == 0 { most } else { Duration::from_secs(commit.seconds).min(most) }
}

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
