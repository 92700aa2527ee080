//! The sizes of values, row by row.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::DataType,
};
use datafusion::{error::Result, logical_expr::ColumnarValue};

/// Maximum size, as a text, of a number, a date or an element of a list, in bytes.
pub(super) const ELEMENT_TEXT_BYTES: u64 = 32;

/// A size for each row of a column.
#[derive(Debug, Clone)]
pub(super) enum RowSizes {
    /// The same in every row.
    Same(u64),
    /// By row.
    Each(Vec<u64>),
}

impl RowSizes {
    pub(super) fn at(&self, row: usize) -> u64 {
        match self {
            Self::Same(size) => *size,
            Self::Each(sizes) => sizes.get(row).copied().unwrap_or(0),
        }
    }

    /// The bytes of each value, plus [`ELEMENT_TEXT_BYTES`] for each element of a list.
    pub(super) fn bytes(values: &ColumnarValue) -> Result<Self> {
        sizes_of(values, &bytes)
    }

    /// The bytes of each text, or the number of elements of each list.
    pub(super) fn lengths(values: &ColumnarValue) -> Result<Self> {
        sizes_of(values, &|array| match array.data_type() {
            DataType::List(_) => offsets(array.as_list::<i32>().offsets().iter().map(|at| *at as usize), 1, None),
            DataType::LargeList(_) => offsets(array.as_list::<i64>().offsets().iter().map(|at| *at as usize), 1, None),
            _ => bytes(array),
        })
    }
}

fn sizes_of(values: &ColumnarValue, sizes: &impl Fn(&ArrayRef) -> Vec<u64>) -> Result<RowSizes> {
    Ok(match values {
        ColumnarValue::Scalar(value) => RowSizes::Same(sizes(&value.to_array()?).first().copied().unwrap_or(0)),
        ColumnarValue::Array(array) => RowSizes::Each(sizes(array)),
    })
}

/// The bytes of each value, plus [`ELEMENT_TEXT_BYTES`] for each element of a list.
pub(super) fn bytes(array: &ArrayRef) -> Vec<u64> {
    let at = |at: &i32| *at as usize;
    let at_large = |at: &i64| *at as usize;
    match array.data_type() {
        DataType::Utf8 => offsets(array.as_string::<i32>().offsets().iter().map(at), 1, None),
        DataType::LargeUtf8 => offsets(array.as_string::<i64>().offsets().iter().map(at_large), 1, None),
        DataType::Binary => offsets(array.as_binary::<i32>().offsets().iter().map(at), 1, None),
        DataType::LargeBinary => offsets(array.as_binary::<i64>().offsets().iter().map(at_large), 1, None),
        // The length is in the low half of a view.
        DataType::Utf8View => array.as_string_view().views().iter().map(|view| u64::from(*view as u32)).collect(),
        DataType::BinaryView => array.as_binary_view().views().iter().map(|view| u64::from(*view as u32)).collect(),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            offsets(list.offsets().iter().map(at), ELEMENT_TEXT_BYTES, Some(list.values()))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            offsets(list.offsets().iter().map(at_large), ELEMENT_TEXT_BYTES, Some(list.values()))
        }
        DataType::FixedSizeList(_, width) => {
            let width = usize::try_from(*width).unwrap_or(0);
            let positions = (0..=array.len()).map(|row| row * width);
            offsets(positions, ELEMENT_TEXT_BYTES, Some(array.as_fixed_size_list().values()))
        }
        DataType::Map(..) => {
            let entries = array.as_map();
            let values: ArrayRef = std::sync::Arc::new(entries.entries().clone());
            offsets(entries.offsets().iter().map(at), ELEMENT_TEXT_BYTES, Some(&values))
        }
        DataType::Struct(_) => {
            let columns: Vec<_> = array.as_struct().columns().iter().map(bytes).collect();
            (0..array.len()).map(|row| columns.iter().map(|column| column[row]).sum()).collect()
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let values = bytes(dictionary.values());
            // Without values there are no valid keys.
            if values.is_empty() {
                return vec![0; array.len()];
            }
            dictionary.normalized_keys().into_iter().map(|key| values.get(key).copied().unwrap_or(0)).collect()
        }
        other => vec![other.primitive_width().unwrap_or(ELEMENT_TEXT_BYTES as usize) as u64; array.len()],
    }
}

/// The size between consecutive offsets: `each` for every position, plus the size of its value where there are values.
fn offsets(positions: impl Iterator<Item = usize>, each: u64, values: Option<&ArrayRef>) -> Vec<u64> {
    let sizes = values.map(bytes).unwrap_or_default();
    let mut sums = Vec::with_capacity(sizes.len() + 1);
    let mut sum = 0;
    sums.push(0);
    for size in sizes {
        sum += size;
        sums.push(sum);
    }
    let size_before = |position: usize| position as u64 * each + sums.get(position).copied().unwrap_or(sum);
    let sizes: Vec<u64> = positions.map(size_before).collect();
    sizes.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{DictionaryArray, Int64Array, LargeStringArray, ListArray, StringArray, StringViewArray},
        datatypes::Int32Type,
    };
    use datafusion::scalar::ScalarValue;

    use super::*;

    #[test]
    fn size_of_a_text_is_its_bytes_in_any_layout() {
        let texts = [Some("ab"), None, Some("a text that is longer than a view"), Some("ü")];
        let arrays: [ArrayRef; 3] = [
            Arc::new(StringArray::from(texts.to_vec())),
            Arc::new(LargeStringArray::from(texts.to_vec())),
            Arc::new(StringViewArray::from(texts.to_vec())),
        ];
        for array in arrays {
            assert_eq!(bytes(&array), [2, 0, 33, 2]);
            assert_eq!(bytes(&array.slice(2, 2)), [33, 2]);
        }
    }

    #[test]
    fn size_of_a_dictionary_is_that_of_its_values() {
        let words: DictionaryArray<Int32Type> = [Some("one"), None, Some("three"), Some("one")].into_iter().collect();
        assert_eq!(bytes(&(Arc::new(words.slice(2, 2)) as ArrayRef)), [5, 3]);
        let nothing: DictionaryArray<Int32Type> = [None::<&str>, None].into_iter().collect();
        assert_eq!(bytes(&(Arc::new(nothing) as ArrayRef)), [0, 0]);
    }

    #[test]
    fn size_of_a_list_includes_its_elements() {
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), Some(2)]),
            None,
            Some(vec![Some(3)]),
        ]));
        assert_eq!(bytes(&lists), [2 * (ELEMENT_TEXT_BYTES + 4), 0, ELEMENT_TEXT_BYTES + 4]);
        assert_eq!(bytes(&lists.slice(2, 1)), [ELEMENT_TEXT_BYTES + 4]);
        let RowSizes::Each(lengths) = RowSizes::lengths(&ColumnarValue::Array(lists)).unwrap() else { panic!() };
        assert_eq!(lengths, [2, 0, 1]);
        assert_eq!(bytes(&(Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)), [8, 8]);
        assert_eq!(RowSizes::bytes(&ColumnarValue::Scalar(ScalarValue::from("abc"))).unwrap().at(7), 3);
    }
}
