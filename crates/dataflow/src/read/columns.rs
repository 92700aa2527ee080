//! Which columns of a file are read, and as what.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::physical_optimizer::pruning::PruningPredicate;

use crate::source::spec::CsvSpec;

/// Which columns of a file are read, and as what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Columns {
    /// The column whose values are ids. Without one, the ids are null.
    pub(crate) id: Option<String>,
    /// The column whose values are texts. Without one, the texts are null.
    pub(crate) text: Option<String>,
    /// Other columns, with the types in which they are read. A column may be read in two types.
    pub(crate) keep: Vec<FieldRef>,
    /// The largest size of a text.
    pub(crate) max_bytes: u64,
    /// The separators of CSV files, where they are given.
    pub(crate) csv: CsvSpec,
    /// Names that the header of a CSV file should have.
    pub(crate) header: Arc<[String]>,
    /// Row groups for which this is false have no row of the source.
    pub(crate) pruning: Option<Arc<PruningPredicate>>,
}
