//! Batches between operators: columns by name, and the `_error` column.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StringBuilder, StructArray},
    buffer::NullBuffer,
    error::ArrowError,
};
use polylance_schema::{Stage, columns::ERROR, error_fields};

/// The `_error` column of rows that `stage` refuses with these messages.
pub(crate) fn errors(stage: Stage, errors: &[Option<String>]) -> StructArray {
    let stages = StringArray::from_iter_values(std::iter::repeat_n(stage.as_str(), errors.len()));
    let messages = StringArray::from_iter_values(errors.iter().map(|error| error.as_deref().unwrap_or_default()));
    let nulls: NullBuffer = errors.iter().map(Option::is_some).collect();
    StructArray::new(error_fields(), vec![Arc::new(stages), Arc::new(messages)], Some(nulls))
}

/// A batch in which the rows with a message are refused by `stage`; rows that were refused before keep their error.
pub(crate) fn with_errors(
    batch: &RecordBatch,
    stage: Stage,
    messages: &[Option<String>],
) -> Result<RecordBatch, ArrowError> {
    if messages.iter().all(Option::is_none) {
        return Ok(batch.clone());
    }
    let (at, _) = batch.schema_ref().column_with_name(ERROR).ok_or_else(|| missing(ERROR))?;
    let before = batch.column(at).as_struct();
    let (stages, texts) = (before.column(0).as_string::<i32>(), before.column(1).as_string::<i32>());
    let (mut new_stages, mut new_texts) = (StringBuilder::new(), StringBuilder::new());
    let mut valid = Vec::with_capacity(messages.len());
    for (row, message) in messages.iter().enumerate() {
        let (new_stage, text) = match message {
            Some(message) if before.is_null(row) => (stage.as_str(), message.as_str()),
            _ if before.is_null(row) => ("", ""),
            _ => (stages.value(row), texts.value(row)),
        };
        new_stages.append_value(new_stage);
        new_texts.append_value(text);
        valid.push(before.is_valid(row) || message.is_some());
    }
    let fields = error_fields();
    let column = StructArray::new(
        fields,
        vec![Arc::new(new_stages.finish()), Arc::new(new_texts.finish())],
        Some(NullBuffer::from(valid)),
    );
    let mut columns = batch.columns().to_vec();
    columns[at] = Arc::new(column);
    RecordBatch::try_new(batch.schema(), columns)
}

/// A column by name.
pub(crate) fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    batch.column_by_name(name).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> ArrowError {
    ArrowError::SchemaError(format!("no column {name}"))
}
