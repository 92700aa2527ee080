//! 128 bits that change when a document's text or a kept column changes.
//!
//! BLAKE3 over the text and then each kept column. [`ContentRule::Encoded`], the rule of new tables: the text as its
//! length in bytes, a little-endian `u64`, and its bytes; then, in the order of their names, the name of each kept
//! column in the same way and its value as [`value_bytes()`] writes it. [`ContentRule::Printed`], the rule of tables
//! that record none: the text and then each kept column in the run's order, each as one byte (0 for null, 1 otherwise),
//! the length and the value as Arrow prints it. Neither depends on the file format, on how rows are batched, or on
//! whether strings are dictionary-encoded.

mod value_bytes;

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, StringArray},
    datatypes::{DataType, FieldRef},
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use polylance_schema::ContentRule;

use self::value_bytes::value_bytes;

/// One hash per row; null where the text is. `fields` are those of `keep`.
pub(crate) fn content_hashes(
    rule: ContentRule,
    text: &StringArray,
    fields: &[FieldRef],
    keep: &[ArrayRef],
) -> Result<FixedSizeBinaryArray, ArrowError> {
    match rule {
        ContentRule::Printed => printed(text, keep),
        ContentRule::Encoded => encoded(text, fields, keep),
    }
}

fn encoded(text: &StringArray, fields: &[FieldRef], keep: &[ArrayRef]) -> Result<FixedSizeBinaryArray, ArrowError> {
    let mut columns: Vec<(&str, &ArrayRef)> = fields.iter().map(|field| field.name().as_str()).zip(keep).collect();
    columns.sort_by_key(|(name, _)| *name);
    let mut hashes = FixedSizeBinaryBuilder::with_capacity(text.len(), 16);
    let mut bytes = Vec::new();
    for row in 0..text.len() {
        if text.is_null(row) {
            hashes.append_null();
            continue;
        }
        let mut hasher = blake3::Hasher::new();
        let sized = |hasher: &mut blake3::Hasher, value: &str| {
            hasher.update(&(value.len() as u64).to_le_bytes()).update(value.as_bytes());
        };
        sized(&mut hasher, text.value(row));
        for (name, column) in &columns {
            bytes.clear();
            value_bytes(column, row, &mut bytes)?;
            sized(&mut hasher, name);
            hasher.update(&bytes);
        }
        hashes.append_value(&hasher.finalize().as_bytes()[..16])?;
    }
    Ok(hashes.finish())
}

fn printed(text: &StringArray, keep: &[ArrayRef]) -> Result<FixedSizeBinaryArray, ArrowError> {
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

/// A kept column; strings are read in place, other values as Arrow prints them.
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

    use arrow::{
        array::{
            BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
            StructArray, TimestampMicrosecondArray, UInt64Array,
        },
        compute::cast,
        datatypes::{Field, Int32Type},
    };

    use super::*;

    fn field(name: &str, array: &ArrayRef) -> FieldRef {
        Arc::new(Field::new(name, array.data_type().clone(), true))
    }

    /// The hash of the text "a" with row 0 of these kept columns.
    fn hash_of(rule: ContentRule, keep: &[(&str, ArrayRef)]) -> String {
        let fields: Vec<_> = keep.iter().map(|(name, array)| field(name, array)).collect();
        let keep: Vec<_> = keep.iter().map(|(_, array)| Arc::clone(array)).collect();
        let rows = keep.first().map_or(1, Array::len);
        let hashes = content_hashes(rule, &StringArray::from(vec!["a"; rows]), &fields, &keep).unwrap();
        hashes.value(0).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    }

    fn one(array: impl Array + 'static) -> String {
        hash_of(ContentRule::Encoded, &[("k", Arc::new(array))])
    }

    fn list(values: &[Option<&str>]) -> ListArray {
        let mut builder = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
        builder.append_value(values.iter().copied());
        builder.finish()
    }

    fn hash(rule: ContentRule, text: &str, lang: Option<&str>, year: Option<i64>) -> Vec<u8> {
        let keep: [ArrayRef; 2] = [Arc::new(StringArray::from(vec![lang])), Arc::new(Int64Array::from(vec![year]))];
        let fields = [field("lang", &keep[0]), field("year", &keep[1])];
        content_hashes(rule, &StringArray::from(vec![text]), &fields, &keep).unwrap().value(0).to_vec()
    }

    #[test]
    fn the_hash_depends_on_every_part_of_a_row() {
        for rule in [ContentRule::Printed, ContentRule::Encoded] {
            let rows = [
                hash(rule, "a", Some("b"), Some(1)),
                hash(rule, "b", Some("a"), Some(1)),
                hash(rule, "ab", Some(""), Some(1)),
                hash(rule, "a", None, Some(1)),
                hash(rule, "a", Some(""), Some(1)),
                hash(rule, "a", Some("b"), None),
                hash(rule, "a", Some("b"), Some(2)),
            ];
            for (at, row) in rows.iter().enumerate() {
                assert!(!rows[..at].contains(row), "row {at}");
            }
            assert_eq!(rows[0], hash(rule, "a", Some("b"), Some(1)));
        }
    }

    /// Tables have these hashes: every later version must compute the same.
    #[test]
    fn hashes_never_change_between_versions() {
        let lang: ArrayRef = Arc::new(StringArray::from(vec!["fra"]));
        let year: ArrayRef = Arc::new(Int64Array::from(vec![1948]));
        let both = [("lang", Arc::clone(&lang)), ("year", Arc::clone(&year))];
        assert_eq!(hash_of(ContentRule::Printed, &[]), "37237abcc15ce564b805e05bc89905f8");
        assert_eq!(hash_of(ContentRule::Printed, &both), "54418753e1dc9c0c980fd35b653e16ce");
        assert_eq!(hash_of(ContentRule::Encoded, &[]), "57feb47890e14caeeef4fed93f6b8fce");
        assert_eq!(hash_of(ContentRule::Encoded, &both), "bedfee84da51e0f9857e56eb6f690c5f");
        let golden = [
            (one(list(&[Some("a"), None])), "03c897ba620dec2096aa6be80e47a354"),
            (one(BooleanArray::from(vec![true])), "68ba05fbe175c43ae4bad344f50b46cc"),
            (one(Float32Array::from(vec![0.5])), "c6d997c3720c97d479fe3f06e9a041bb"),
            (one(Date32Array::from(vec![20_000])), "4e8eaf97a2963bb8d26b8e4b77a29dd0"),
            (one(TimestampMicrosecondArray::from(vec![7]).with_timezone("UTC")), "b32df5e02f6e0ca8d3212b6df3b92b86"),
            (
                one(Decimal128Array::from(vec![12345]).with_precision_and_scale(9, 2).unwrap()),
                "7408cbfb3c176e6e13bcf667ae669fda",
            ),
            (one(StructArray::from(vec![(field("x", &year), year)])), "6bafbe331903f0627ae3337116b15a24"),
            (one(Int64Array::from(vec![None])), "f800174c4fd843241a67cf363cf683f2"),
        ];
        for (at, (found, expected)) in golden.iter().enumerate() {
            assert_eq!(found, expected, "value {at}");
        }
    }

    #[test]
    fn lists_that_print_alike_have_different_hashes() {
        let numbers = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]);
        let hashes = [
            one(list(&[Some("a, b")])),
            one(list(&[Some("a"), Some("b")])),
            one(list(&[Some("")])),
            one(list(&[])),
            one(list(&[None])),
            one(list(&[Some("1")])),
            one(numbers),
        ];
        for (at, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..at].contains(hash), "list {at}");
        }
    }

    #[test]
    fn the_hash_depends_on_the_names_of_kept_columns_and_not_on_their_order() {
        let (a, b): (ArrayRef, ArrayRef) =
            (Arc::new(StringArray::from(vec!["x"])), Arc::new(StringArray::from(vec!["y"])));
        let hash = |keep: &[(&str, &ArrayRef)]| {
            let keep: Vec<_> = keep.iter().map(|(name, array)| (*name, Arc::clone(array))).collect();
            hash_of(ContentRule::Encoded, &keep)
        };
        assert_eq!(hash(&[("a", &a), ("b", &b)]), hash(&[("b", &b), ("a", &a)]));
        assert_ne!(hash(&[("a", &a), ("b", &b)]), hash(&[("a", &b), ("b", &a)]));
    }

    #[test]
    fn the_hash_does_not_depend_on_how_a_value_is_stored() {
        let text = StringArray::from(vec!["x", "y"]);
        let dictionary = text.iter().collect::<arrow::array::DictionaryArray<Int32Type>>();
        let view = cast(&text, &DataType::Utf8View).unwrap();
        let large = cast(&text, &DataType::LargeUtf8).unwrap();
        assert_eq!(one(dictionary), one(text.clone()));
        for array in [view, large] {
            assert_eq!(hash_of(ContentRule::Encoded, &[("k", array)]), one(text.clone()));
        }
        assert_eq!(one(Int32Array::from(vec![7])), one(UInt64Array::from(vec![7])));
        assert_eq!(one(Float32Array::from(vec![0.5])), one(Float64Array::from(vec![0.5])));
        assert_eq!(one(Float64Array::from(vec![f64::NAN])), one(Float64Array::from(vec![-f64::NAN])));
        assert_ne!(one(Float64Array::from(vec![0.0])), one(Float64Array::from(vec![-0.0])));
        let later = Date32Array::from(vec![1, 2, 3]).slice(1, 1);
        assert_eq!(one(later), one(Date32Array::from(vec![2])));
    }
}
