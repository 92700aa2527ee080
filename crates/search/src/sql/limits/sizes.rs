//! How large values are, row by row.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::DataType,
};
use datafusion::{error::Result, logical_expr::ColumnarValue};

/// Bytes that a number, a date or a place in a list may have as a text.
pub(super) const ELEMENT: u64 = 32;

/// A quantity of each row of a column.
#[derive(Debug, Clone)]
pub(super) enum Rows {
    /// The same in every row.
    Same(u64),
    /// By row.
    Each(Vec<u64>),
}

impl Rows {
    pub(super) fn at(&self, row: usize) -> u64 {
        match self {
            Self::Same(size) => *size,
            Self::Each(sizes) => sizes.get(row).copied().unwrap_or(0),
        }
    }

    /// Bytes of each value, and [`ELEMENT`] for each element of a list.
    pub(super) fn bytes(values: &ColumnarValue) -> Result<Self> {
        of(values, &bytes)
    }

    /// Bytes of each text, and elements of each list.
    pub(super) fn lengths(values: &ColumnarValue) -> Result<Self> {
        of(values, &|array| match array.data_type() {
            DataType::List(_) => offsets(array.as_list::<i32>().offsets().iter().map(|at| *at as usize), 1, None),
            DataType::LargeList(_) => offsets(array.as_list::<i64>().offsets().iter().map(|at| *at as usize), 1, None),
            _ => bytes(array),
        })
    }
}

fn of(values: &ColumnarValue, sizes: &impl Fn(&ArrayRef) -> Vec<u64>) -> Result<Rows> {
    Ok(match values {
        ColumnarValue::Scalar(value) => Rows::Same(sizes(&value.to_array()?).first().copied().unwrap_or(0)),
        ColumnarValue::Array(array) => Rows::Each(sizes(array)),
    })
}

/// Bytes of each value, and [`ELEMENT`] for each element of a list.
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
            offsets(list.offsets().iter().map(at), ELEMENT, Some(list.values()))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            offsets(list.offsets().iter().map(at_large), ELEMENT, Some(list.values()))
        }
        DataType::FixedSizeList(_, width) => {
            let width = usize::try_from(*width).unwrap_or(0);
            let places = (0..=array.len()).map(|row| row * width);
            offsets(places, ELEMENT, Some(array.as_fixed_size_list().values()))
        }
        DataType::Map(..) => {
            let entries = array.as_map();
            let values: ArrayRef = std::sync::Arc::new(entries.entries().clone());
            offsets(entries.offsets().iter().map(at), ELEMENT, Some(&values))
        }
        DataType::Struct(_) => {
            let columns: Vec<_> = array.as_struct().columns().iter().map(bytes).collect();
            (0..array.len()).map(|row| columns.iter().map(|column| column[row]).sum()).collect()
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let values = bytes(dictionary.values());
            // A dictionary without values has no key that could be looked up.
            if values.is_empty() {
                return vec![0; array.len()];
            }
            dictionary.normalized_keys().into_iter().map(|key| values.get(key).copied().unwrap_or(0)).collect()
        }
        other => vec![other.primitive_width().unwrap_or(ELEMENT as usize) as u64; array.len()],
    }
}

/// What lies between two offsets: `each` for a place, and the size of its value where there are any.
fn offsets(places: impl Iterator<Item = usize>, each: u64, values: Option<&ArrayRef>) -> Vec<u64> {
    let sizes = values.map(bytes).unwrap_or_default();
    let mut sums = Vec::with_capacity(sizes.len() + 1);
    let mut sum = 0;
    sums.push(0);
    for size in sizes {
        sum += size;
        sums.push(sum);
    }
    let upto = |place: usize| place as u64 * each + sums.get(place).copied().unwrap_or(sum);
    let places: Vec<u64> = places.map(upto).collect();
    places.windows(2).map(|pair| pair[1] - pair[0]).collect()
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
    fn texts_have_their_bytes_in_any_layout() {
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
    fn a_dictionary_has_the_bytes_of_its_values() {
        let words: DictionaryArray<Int32Type> = [Some("one"), None, Some("three"), Some("one")].into_iter().collect();
        assert_eq!(bytes(&(Arc::new(words.slice(2, 2)) as ArrayRef)), [5, 3]);
        let nothing: DictionaryArray<Int32Type> = [None::<&str>, None].into_iter().collect();
        assert_eq!(bytes(&(Arc::new(nothing) as ArrayRef)), [0, 0]);
    }

    #[test]
    fn lists_have_their_elements() {
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), Some(2)]),
            None,
            Some(vec![Some(3)]),
        ]));
        assert_eq!(bytes(&lists), [2 * (ELEMENT + 4), 0, ELEMENT + 4]);
        assert_eq!(bytes(&lists.slice(2, 1)), [ELEMENT + 4]);
        let Rows::Each(lengths) = Rows::lengths(&ColumnarValue::Array(lists)).unwrap() else { panic!() };
        assert_eq!(lengths, [2, 0, 1]);
        assert_eq!(bytes(&(Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)), [8, 8]);
        assert_eq!(Rows::bytes(&ColumnarValue::Scalar(ScalarValue::from("abc"))).unwrap().at(7), 3);
    }
}
