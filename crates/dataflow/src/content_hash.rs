//! 128 bits that change when a document's text or a kept column changes.
//!
//! BLAKE3 over the text and then each kept column in order, each as one byte (0 for null, 1 otherwise), the length
//! in bytes as a little-endian `u64`, and the value's text. The hash does not depend on the file format, on how rows
//! were batched, or on whether strings were dictionary-encoded.

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, StringArray},
    datatypes::DataType,
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};

/// One hash a row; null where the text is.
pub(crate) fn content_hashes(text: &StringArray, keep: &[ArrayRef]) -> Result<FixedSizeBinaryArray, ArrowError> {
    let options = FormatOptions::default();
    let columns = keep.iter().map(|column| Column::new(column, &options)).collect::<Result<Vec<_>, _>>()?;
    let mut hashes = FixedSizeBinaryBuilder::with_capacity(text.len(), 16);
    let mut buffer = String::new();
    for row in 0..text.len() {
        if text.is_null(row) {
            hashes.append_null();
            continue;
        }
        let mut hasher = blake3::Hasher::new();
        update(&mut hasher, Some(text.value(row)));
        for column in &columns {
            column.update(&mut hasher, row, &mut buffer)?;
        }
        hashes.append_value(&hasher.finalize().as_bytes()[..16])?;
    }
    Ok(hashes.finish())
}

/// A kept column; strings are read in place, everything else as Arrow prints it.
enum Column<'a> {
    Text(&'a StringArray),
    Other(&'a ArrayRef, ArrayFormatter<'a>),
}

impl<'a> Column<'a> {
    fn new(array: &'a ArrayRef, options: &'a FormatOptions<'a>) -> Result<Self, ArrowError> {
        match array.data_type() {
            DataType::Utf8 => Ok(Self::Text(array.as_string())),
            _ => Ok(Self::Other(array, ArrayFormatter::try_new(array, options)?)),
        }
    }

    fn update(&self, hasher: &mut blake3::Hasher, row: usize, buffer: &mut String) -> Result<(), ArrowError> {
        match self {
            Self::Text(array) => update(hasher, array.is_valid(row).then(|| array.value(row))),
            Self::Other(array, _) if array.is_null(row) => update(hasher, None),
            Self::Other(_, formatter) => {
                buffer.clear();
                formatter.value(row).write(buffer)?;
                update(hasher, Some(buffer));
            }
        }
        Ok(())
    }
}

fn update(hasher: &mut blake3::Hasher, value: Option<&str>) {
    hasher.update(&[u8::from(value.is_some())]);
    if let Some(value) = value {
        hasher.update(&(value.len() as u64).to_le_bytes()).update(value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;

    use super::*;

    fn hash(text: &str, lang: Option<&str>, year: Option<i64>) -> Vec<u8> {
        let keep: [ArrayRef; 2] = [Arc::new(StringArray::from(vec![lang])), Arc::new(Int64Array::from(vec![year]))];
        content_hashes(&StringArray::from(vec![text]), &keep).unwrap().value(0).to_vec()
    }

    #[test]
    fn every_part_of_a_row_counts() {
        let rows = [
            hash("a", Some("b"), Some(1)),
            hash("b", Some("a"), Some(1)),
            hash("ab", Some(""), Some(1)),
            hash("a", None, Some(1)),
            hash("a", Some(""), Some(1)),
            hash("a", Some("b"), None),
            hash("a", Some("b"), Some(2)),
        ];
        for (at, row) in rows.iter().enumerate() {
            assert!(!rows[..at].contains(row), "row {at}");
        }
        assert_eq!(rows[0], hash("a", Some("b"), Some(1)));
    }
}
