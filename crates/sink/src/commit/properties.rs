//! Keys of the transaction properties that every commit of a run has.

/// The run's id.
pub const RUN_ID: &str = "polylance.run_id";
/// A hash of the run's source, columns and contract.
pub const PIPELINE: &str = "polylance.pipeline";
/// Documents that the commit wrote.
pub const DOCUMENTS: &str = "polylance.documents";
/// Chunks (rows) that the commit wrote.
pub const CHUNKS: &str = "polylance.chunks";
/// Older rows that the commit deleted.
pub const REPLACED: &str = "polylance.replaced_rows";
/// Documents missing from the source that the commit deleted.
pub const REMOVED: &str = "polylance.removed_documents";
/// First document of the commit, as `source#row`.
pub const SOURCE_FIRST: &str = "polylance.source_first";
/// Last document of the commit, as `source#row`.
pub const SOURCE_LAST: &str = "polylance.source_last";
/// The annotation column that the commit fills.
pub const COLUMN: &str = "polylance.column";
/// Rows that received a value in that column.
pub const ANNOTATED: &str = "polylance.annotated_rows";
