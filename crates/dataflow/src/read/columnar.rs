//! Batches of Parquet and Arrow files as rows: columns by name, cast to the table's types.

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Schema},
};

use super::{Columns, ReadError};
use crate::batches::Rows;

/// Positions in a file's schema of the id, the text and the kept columns.
pub(super) fn positions(schema: &Schema, columns: &Columns) -> Result<Vec<usize>, ReadError> {
    let content = [&columns.text].into_iter().chain(columns.keep.iter().map(|field| field.name()));
    let names = [&columns.id].into_iter().chain(content.filter(|_| !columns.only_ids));
    names
        .map(|name| schema.index_of(name).map_err(|_| ReadError::Content(format!("the file has no column `{name}`"))))
        .collect()
}

/// A batch of a file with any columns as rows; `first` is the position of its first row.
pub(super) fn rows(batch: &RecordBatch, columns: &Columns, first: u64) -> Result<Rows, ReadError> {
    let column = |name: &str, data_type: &DataType| -> Result<ArrayRef, ReadError> {
        let array =
            batch.column_by_name(name).ok_or_else(|| ReadError::Content(format!("the file has no column `{name}`")))?;
        // A value that does not fit is an error, never a null.
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(array, data_type, &strict)
            .map_err(|error| ReadError::Content(format!("column `{name}`: {error}")))
    };
    let text =
        |name: &str| -> Result<StringArray, ReadError> { Ok(column(name, &DataType::Utf8)?.as_string().clone()) };
    let count = batch.num_rows();
    let row = UInt64Array::from_iter_values(first..first + count as u64);
    if columns.only_ids {
        return Ok(Rows::of_ids(text(&columns.id)?, row, &columns.keep));
    }
    let keep = columns.keep.iter().map(|field| column(field.name(), field.data_type())).collect::<Result<_, _>>()?;
    Ok(Rows { id: text(&columns.id)?, text: text(&columns.text)?, keep, row, errors: vec![None; count] })
}
