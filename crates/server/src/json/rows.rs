//! Rows as JSON.

use arrow::{
    array::RecordBatch,
    error::ArrowError,
    json::{WriterBuilder, writer::LineDelimited},
};
use serde_json::value::RawValue;

use crate::error::ApiError;

/// One JSON object per row, with every column; a column without a value is null.
pub(crate) fn rows(batch: &RecordBatch) -> Result<Vec<Box<RawValue>>, ApiError> {
    let lines = lines(batch).map_err(|error| {
        let is_invalid = |at: &usize| batch.project(&[*at]).is_ok_and(|column| lines(&column).is_err());
        let name = (0..batch.num_columns()).find(is_invalid).map(|at| batch.schema_ref().field(at).name().clone());
        let column = name.map_or_else(|| "a column".to_owned(), |name| format!("the column `{name}`"));
        ApiError::bad("not_json", format!("{column} cannot be written as JSON: {error}")).hint("cast it to text")
    })?;
    // Line breaks inside a value are escaped.
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).map_err(|_| ApiError::bad("not_json", "a row is not valid JSON")))
        .collect()
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

    use arrow::{
        array::{ArrayRef, Decimal128Array, Float32Array, Int64Array, StringArray, UInt64Array, new_null_array},
        datatypes::{DataType, Field, UnionFields, UnionMode},
    };

    use super::*;

    #[test]
    fn rows_have_all_columns_and_unchanged_numbers() {
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(StringArray::from(vec![Some("a\nb"), None])) as ArrayRef),
            ("x", Arc::new(Float32Array::from(vec![0.1, f32::NAN]))),
        ])
        .unwrap();
        let rows: Vec<String> = rows(&batch).unwrap().iter().map(|row| row.get().to_owned()).collect();
        assert_eq!(rows, [r#"{"id":"a\nb","x":0.1}"#, r#"{"id":null,"x":null}"#]);
    }

    #[test]
    fn integers_and_decimals_keep_all_digits() {
        let price =
            Decimal128Array::from(vec![i128::from(i64::MAX) * 100 + 7]).with_precision_and_scale(38, 2).unwrap();
        let batch = RecordBatch::try_from_iter([
            ("u", Arc::new(UInt64Array::from(vec![u64::MAX])) as ArrayRef),
            ("i", Arc::new(Int64Array::from(vec![i64::MIN]))),
            ("d", Arc::new(price)),
        ])
        .unwrap();
        let row = r#"{"u":18446744073709551615,"i":-9223372036854775808,"d":9223372036854775807.07}"#;
        assert_eq!(rows(&batch).unwrap()[0].get(), row);
    }

    #[test]
    fn the_error_names_a_column_that_json_cannot_represent() {
        let fields = UnionFields::try_new([0], [Field::new("n", DataType::Int64, true)]).unwrap();
        let mixed = new_null_array(&DataType::Union(fields, UnionMode::Sparse), 1);
        let id: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let error = rows(&RecordBatch::try_from_iter([("id", id), ("mixed", mixed)]).unwrap()).unwrap_err();
        assert!(error.message.starts_with("the column `mixed` cannot be written"), "{}", error.message);
    }
}
