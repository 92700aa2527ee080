//! Record batches as JSON and as cells of a table for people.

use arrow::{
    array::RecordBatch,
    json::{
        WriterBuilder,
        writer::{JsonArray, LineDelimited},
    },
    util::display::{ArrayFormatter, FormatOptions},
};

use crate::error::Result;

/// Characters of a cell; the rest of a long text is an ellipsis.
const CELL: usize = 160;

/// Objects with every column, null where it has no value.
pub(crate) fn whole_objects() -> WriterBuilder {
    WriterBuilder::new().with_explicit_nulls(true)
}

/// One JSON array of objects.
pub(crate) fn json_array(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = whole_objects().build::<_, JsonArray>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    let mut bytes = writer.into_inner();
    if bytes.is_empty() {
        bytes.extend(b"[]");
    }
    bytes.push(b'\n');
    Ok(bytes)
}

/// One JSON object a line.
pub(crate) fn json_lines(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = whole_objects().build::<_, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

/// The batch's columns' names.
pub(crate) fn header(batch: &RecordBatch) -> Vec<String> {
    batch.schema().fields().iter().map(|field| field.name().clone()).collect()
}

/// The batch's rows as text, each cell on one line.
pub(crate) fn rows(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default().with_display_error(true);
    let formatters = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<Result<Vec<_>, _>>()?;
    let cell = |formatter: &ArrayFormatter<'_>, row| short(&formatter.value(row).to_string(), CELL);
    Ok((0..batch.num_rows()).map(|row| formatters.iter().map(|column| cell(column, row)).collect()).collect())
}

/// A text on one line of at most `limit` characters.
pub(crate) fn short(text: &str, limit: usize) -> String {
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
            // A control character could command the terminal.
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
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(short("  a \n b\t", 10), "a b");
        assert_eq!(short("ẞtraße", 4), "ẞtra…");
        assert_eq!(short("\u{1b}[31m", 10), "\u{fffd}[31m");
    }

    #[test]
    fn a_batch_is_an_array_of_objects() {
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(StringArray::from(vec![Some("a"), None])) as arrow::array::ArrayRef),
            ("x", Arc::new(Float32Array::from(vec![0.5, 2.0]))),
        ])
        .unwrap();
        let text = String::from_utf8(json_array(&batch).unwrap()).unwrap();
        assert_eq!(text, "[{\"id\":\"a\",\"x\":0.5},{\"id\":null,\"x\":2.0}]\n");
        assert_eq!(json_lines(&batch).unwrap(), b"{\"id\":\"a\",\"x\":0.5}\n{\"id\":null,\"x\":2.0}\n");
        assert_eq!(header(&batch), ["id", "x"]);
        assert_eq!(rows(&batch).unwrap()[1], ["", "2.0"]);
        let empty = RecordBatch::new_empty(Arc::new(Schema::empty()));
        assert_eq!(json_array(&empty).unwrap(), b"[]\n");
    }
}
