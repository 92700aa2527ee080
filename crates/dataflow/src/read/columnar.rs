//! Batches of Parquet and Arrow files as rows: columns by name, in the types of the table.

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, UInt64Array, new_null_array},
    datatypes::Schema,
};

use super::{
    columns::Columns,
    error::ReadError,
    rows::Rows,
    types::exact::{self, is_id, is_text},
};

/// Positions in a file's schema of the id, the text and those of the other columns that the file has.
pub(super) fn positions(schema: &Schema, columns: &Columns) -> Result<Vec<usize>, ReadError> {
    let needed = |name: &str, expected: &str, fits: fn(&arrow::datatypes::DataType) -> bool| {
        let at =
            position(schema, name)?.ok_or_else(|| ReadError::Content(format!("the file has no column `{name}`")))?;
        let found = schema.field(at).data_type();
        if fits(found) {
            return Ok(at);
        }
        Err(ReadError::Content(format!("column `{name}` is {found}, expected {expected}")))
    };
    let mut positions = Vec::with_capacity(columns.keep.len() + 2);
    if let Some(id) = &columns.id {
        // Doubles are checked row by row: some writers turn whole numbers with nulls into them.
        positions.push(needed(id, "text or whole numbers", |found| is_id(found) || found.is_floating())?);
    }
    if let Some(text) = &columns.text {
        positions.push(needed(text, "text", is_text)?);
    }
    for field in &columns.keep {
        positions.extend(position(schema, field.name())?);
    }
    Ok(positions)
}

/// The position of a column, if the file has it.
fn position(schema: &Schema, name: &str) -> Result<Option<usize>, ReadError> {
    let mut found = schema.fields().iter().enumerate().filter(|(_, field)| field.name() == name).map(|(at, _)| at);
    let first = found.next();
    match found.next() {
        Some(_) => Err(ReadError::Content(format!("the file has more than one column `{name}`"))),
        None => Ok(first),
    }
}

/// The rows of a batch; `first` is the position of its first row in the file.
pub(super) fn rows(batch: &RecordBatch, columns: &Columns, first: u64) -> Result<Rows, ReadError> {
    let column = |name: &str| -> Result<&ArrayRef, ReadError> {
        batch.column_by_name(name).ok_or_else(|| ReadError::Content(format!("the file has no column `{name}`")))
    };
    let count = batch.num_rows();
    let mut errors = vec![None; count];
    let row = UInt64Array::from_iter_values(first..first + count as u64);
    let id = match &columns.id {
        Some(name) => exact::ids(name, column(name)?, &mut errors)?,
        None => StringArray::new_null(count),
    };
    let text = match &columns.text {
        Some(name) => exact::texts(name, column(name)?, &mut errors)?,
        None => StringArray::new_null(count),
    };
    let mut keep = Vec::with_capacity(columns.keep.len());
    for field in &columns.keep {
        keep.push(match batch.column_by_name(field.name()) {
            Some(array) => exact::column(field.name(), array, field.data_type(), &mut errors)?,
            None => new_null_array(field.data_type(), count),
        });
    }
    Ok(Rows { id, text, keep, row, errors })
}
