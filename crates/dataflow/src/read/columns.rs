//! Which columns of a file are read, and how.

use arrow::datatypes::FieldRef;

use crate::source::spec::CsvSpec;

/// Which columns of a file are read, and as what.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    pub(crate) id: String,
    pub(crate) text: String,
    /// The kept columns, with their names and types in the table.
    pub(crate) keep: Vec<FieldRef>,
    /// The largest size of a text.
    pub(crate) max_bytes: u64,
    /// The separators of CSV files, where they are given.
    pub(crate) csv: CsvSpec,
    pub(crate) mode: ReadMode,
}

/// How much of each row is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// All columns.
    Whole,
    /// The ids alone, of an unchanged file. Formats that can skip the other columns do so.
    IdsOnly,
}
