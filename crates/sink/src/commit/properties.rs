//! Keys of the transaction properties that every commit of a run carries.

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
