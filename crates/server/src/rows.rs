//! Rows as JSON.

use arrow::{
    array::RecordBatch,
    error::ArrowError,
    json::{WriterBuilder, writer::LineDelimited},
};
use serde_json::value::RawValue;

use crate::error::ApiError;

/// One JSON object a row, with every column, null where it has no value.
pub(crate) fn rows(batch: &RecordBatch) -> Result<Vec<Box<RawValue>>, ApiError> {
    let lines = lines(batch).map_err(|error| {
        ApiError::bad("not_json", format!("a column cannot be written as JSON: {error}")).hint("cast it to a text")
    })?;
    // A line break inside a value is written as an escape.
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|_| ApiError::bad("not_json", "a row is no JSON"))).collect()
}

fn lines(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    if batch.num_columns() == 0 {
        return Ok(b"{}\n".repeat(batch.num_rows()));
    }
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float32Array, StringArray};

    use super::*;

    #[test]
    fn a_row_has_every_column_and_numbers_as_they_are() {
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(StringArray::from(vec![Some("a\nb"), None])) as ArrayRef),
            ("x", Arc::new(Float32Array::from(vec![0.1, f32::NAN]))),
        ])
        .unwrap();
        let rows: Vec<String> = rows(&batch).unwrap().iter().map(|row| row.get().to_owned()).collect();
        assert_eq!(rows, [r#"{"id":"a\nb","x":0.1}"#, r#"{"id":null,"x":null}"#]);
    }
}
