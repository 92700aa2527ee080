//! The types in which the SQL of a source reads columns, as text: a run records them in its table, so that a later run
//! need not look at all files to decide them again.

use std::fmt::Write;

use arrow::{
    datatypes::{FieldRef, Schema},
    error::ArrowError,
    ipc::{reader::StreamReader, writer::StreamWriter},
};

use super::spec::SourceSpec;

/// The columns as hexadecimal Arrow IPC.
///
/// # Errors
/// When a type has no form in Arrow IPC.
pub fn encode(columns: &[FieldRef]) -> Result<String, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), &Schema::new(columns.to_vec()))?;
    writer.finish()?;
    Ok(writer.into_inner()?.iter().fold(String::new(), |mut text, byte| {
        let _written = write!(text, "{byte:02x}");
        text
    }))
}

/// The columns of a text that [`encode`] made; none of any other text.
pub fn decode(text: &str) -> Vec<FieldRef> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let Some(bytes) = (0..text.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>() else { return Vec::new() };
    StreamReader::try_new(&bytes[..], None).map(|reader| reader.schema().fields().to_vec()).unwrap_or_default()
}

/// Identifies everything that decides which columns the SQL reads, and from which files.
pub(super) fn key(spec: &SourceSpec) -> String {
    let SourceSpec { uri, format, id, text, keep, condition, csv, max_bytes: _, memory: _ } = spec;
    let canonical = serde_json::json!([uri, format, id, text, keep, condition, [csv.delimiter, csv.quote, csv.escape]]);
    blake3::hash(canonical.to_string().as_bytes()).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field};

    use super::*;

    #[test]
    fn columns_are_read_as_they_were_recorded_and_damage_gives_none() {
        let item = Field::new("item", DataType::Float64, true);
        let columns: Vec<FieldRef> = vec![
            Arc::new(Field::new("odd \"name\"", DataType::Int64, true)),
            Arc::new(Field::new("tags", DataType::List(Arc::new(item)), true)),
        ];
        let text = encode(&columns).unwrap();
        assert_eq!(decode(&text), columns);
        for damaged in ["", "zz", "0", "ffff", &text[..text.len() / 4], "é"] {
            assert_eq!(decode(damaged), Vec::<FieldRef>::new(), "{damaged}");
        }
    }
}
