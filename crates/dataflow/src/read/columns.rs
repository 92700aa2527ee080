//! Which columns of a file are read, and how.

use arrow::datatypes::FieldRef;

use crate::source::spec::CsvSpec;

/// Which columns of a file are read, and as what.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    pub(crate) id: String,
    pub(crate) text: String,
    /// Names and types in the table.
    pub(crate) keep: Vec<FieldRef>,
    pub(crate) max_bytes: u64,
    /// How CSV files are written.
    pub(crate) csv: CsvSpec,
    /// Whether the content is not wanted: formats that can leave it unread do so.
    pub(crate) only_ids: bool,
}
