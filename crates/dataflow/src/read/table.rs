//! A part of a table, which is read by the table's library.

use lance::Dataset;
use polylance_iceberg::IcebergTable;

use super::{columns::Columns, error::ReadError, iceberg, lance as fragment, open_file::OpenFile, rows::RowStream};
use crate::read::types::FileTypes;

/// The table that a file is a part of.
#[derive(Debug, Clone, Copy)]
pub(super) enum TableFile<'a> {
    Lance(&'a Dataset),
    Iceberg(&'a IcebergTable),
}

impl TableFile<'_> {
    /// The columns of the table.
    pub(super) fn types(self) -> FileTypes {
        match self {
            Self::Lance(table) => fragment::types(table),
            Self::Iceberg(table) => iceberg::types(table),
        }
    }

    /// The rows of the part that `file` stands for.
    pub(super) async fn rows(self, file: &OpenFile, columns: &Columns) -> Result<RowStream, ReadError> {
        match self {
            Self::Lance(table) => fragment::rows(file, table, columns).await,
            Self::Iceberg(table) => iceberg::rows(file, table, columns),
        }
    }
}
