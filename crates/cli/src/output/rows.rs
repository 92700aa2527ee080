//! Rows of record batches as JSON, and as cells of a printed table.

use arrow::{
    array::RecordBatch,
    json::{
        WriterBuilder,
        writer::{JsonArray, LineDelimited},
    },
    util::display::{ArrayFormatter, FormatOptions},
};

use crate::error::Result;

/// Maximum characters of a cell; a longer text ends with an ellipsis.
const MAX_CELL_CHARS: usize = 160;

/// A writer of objects with all columns; a missing value is an explicit null.
pub(crate) fn explicit_nulls() -> WriterBuilder {
    WriterBuilder::new().with_explicit_nulls(true)
}

/// One JSON array of objects.
pub(crate) fn json_array(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = explicit_nulls().build::<_, JsonArray>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    let mut bytes = writer.into_inner();
    if bytes.is_empty() {
        bytes.extend(b"[]");
    }
    bytes.push(b'\n');
    Ok(bytes)
}

/// One JSON object per line.
pub(crate) fn json_lines(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = explicit_nulls().build::<_, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

/// The names of the batch's columns.
pub(crate) fn header(batch: &RecordBatch) -> Vec<String> {
    batch.schema().fields().iter().map(|field| field.name().clone()).collect()
}

/// The batch's rows as text, each cell on one line.
pub(crate) fn cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default().with_display_error(true);
    let formatters = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<Result<Vec<_>, _>>()?;
    let cell = |formatter: &ArrayFormatter<'_>, row| truncated(&formatter.value(row).to_string(), MAX_CELL_CHARS);
    Ok((0..batch.num_rows()).map(|row| formatters.iter().map(|column| cell(column, row)).collect()).collect())
}

/// A text on one line, cut at `limit` characters.
pub(crate) fn truncated(text: &str, limit: usize) -> String {
    let mut line = String::new();
    let mut count = 0;
    for word in text.split_whitespace() {
        if count > 0 {
            line.push(' ');
            count += 1;
        }
        for character in word.chars() {
            if count >= limit {
                line.push('…');
                return line;
            }
            // Control characters could change the state of the terminal.
            line.push(if character.is_control() { '\u{fffd}' } else { character });
            count += 1;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Float32Array, StringArray},
        datatypes::Schema,
    };

    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(truncated("  a \n b\t", 10), "a b");
        assert_eq!(truncated("ẞtraße", 4), "ẞtra…");
        assert_eq!(truncated("\u{1b}[31m", 10), "\u{fffd}[31m");
    }

    #[test]
    fn batch_is_an_array_of_objects() {
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(StringArray::from(vec![Some("a"), None])) as arrow::array::ArrayRef),
            ("x", Arc::new(Float32Array::from(vec![0.5, 2.0]))),
        ])
        .unwrap();
        let text = String::from_utf8(json_array(&batch).unwrap()).unwrap();
        assert_eq!(text, "[{\"id\":\"a\",\"x\":0.5},{\"id\":null,\"x\":2.0}]\n");
        assert_eq!(json_lines(&batch).unwrap(), b"{\"id\":\"a\",\"x\":0.5}\n{\"id\":null,\"x\":2.0}\n");
        assert_eq!(header(&batch), ["id", "x"]);
        assert_eq!(cells(&batch).unwrap()[1], ["", "2.0"]);
        let empty = RecordBatch::new_empty(Arc::new(Schema::empty()));
        assert_eq!(json_array(&empty).unwrap(), b"[]\n");
    }
}
