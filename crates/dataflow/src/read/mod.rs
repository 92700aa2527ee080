//! Reads one file as a stream of [`rows::Rows`], whatever its format.

mod arrow_ipc;
mod columnar;
pub(crate) mod columns;
mod csv;
pub(crate) mod error;
pub(crate) mod format;
mod iceberg;
mod jsonl;
mod lance;
mod lines;
pub(crate) mod open_file;
mod parquet;
pub(crate) mod rows;
mod table;
mod text_rows;
pub(crate) mod types;

use futures::{StreamExt, stream};
use polylance_schema::SourceFormat;

use self::{
    columns::Columns,
    error::ReadError,
    open_file::OpenFile,
    rows::RowStream,
    types::{FileTypes, TypeRequest},
};
use crate::source::spec::CsvSpec;

impl OpenFile {
    /// The file's format, its columns and their types.
    pub(crate) async fn types(
        &self,
        format: Option<SourceFormat>,
        csv: CsvSpec,
        request: &TypeRequest,
    ) -> Result<(SourceFormat, FileTypes), ReadError> {
        if let Some(table) = self.table(format)? {
            // The format of the first file is that of empty text files after it.
            return Ok((SourceFormat::Arrow, table.types()));
        }
        let Some((format, compression)) = self.sniff(format).await? else {
            return Err(ReadError::Content("the file is empty".into()));
        };
        let types = match format {
            SourceFormat::Parquet => types::declared(parquet::schema(self).await?.as_ref()),
            SourceFormat::Arrow => types::declared(arrow_ipc::schema(self).await?.as_ref()),
            SourceFormat::Jsonl => jsonl::types(self, compression, request).await?,
            SourceFormat::Csv => csv::types(self, compression, csv, request).await?,
        };
        Ok((format, types))
    }

    /// The bytes at which the row groups of a Parquet file begin, by their shares of the rows. Empty for a file that is
    /// read in one piece.
    pub(crate) async fn row_group_begins(&self, format: Option<SourceFormat>) -> Result<Vec<u64>, ReadError> {
        if self.table(format)?.is_some() || !self.has_parts() {
            return Ok(Vec::new());
        }
        match self.sniff(format).await? {
            Some((SourceFormat::Parquet, _)) => parquet::row_group_begins(self).await,
            _ => Ok(Vec::new()),
        }
    }

    /// The file's rows. The error, if any, is the last item.
    pub(crate) async fn rows(&self, columns: &Columns, format: Option<SourceFormat>) -> Result<RowStream, ReadError> {
        if let Some(table) = self.table(format)? {
            return table.rows(self, columns).await;
        }
        let Some((format, compression)) = self.sniff(format).await? else { return Ok(stream::empty().boxed()) };
        let rows = match format {
            SourceFormat::Parquet => parquet::rows(self, columns).await?,
            SourceFormat::Arrow => arrow_ipc::rows(self, columns).await?,
            SourceFormat::Jsonl => jsonl::rows(self, columns, compression).await?,
            SourceFormat::Csv => csv::rows(self, columns, compression).await?,
        };
        Ok(self.clone().watched(rows))
    }
}
