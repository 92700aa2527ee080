//! Columns of files in the types of the table. A row with a value that would change is refused.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, StringArray, new_null_array},
    compute::{CastOptions, cast, cast_with_options},
    datatypes::{DataType, Float64Type},
    error::ArrowError,
    util::display::array_value_to_string,
};
use uuid::Uuid;

use super::{
    kind::exact_float,
    widen::{comparable, plain_type},
};

/// The largest number of bytes of a value that a message shows.
const MAX_SHOWN_BYTES: usize = 80;

/// Whether a column of this type can be the text.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    matches!(plain_type(data_type), DataType::Utf8 | DataType::Binary | DataType::LargeBinary)
}

/// Whether a column of this type can be the id.
pub(crate) fn is_id(data_type: &DataType) -> bool {
    let plain = plain_type(data_type);
    plain.is_integer()
        || is_text(&plain)
        || matches!(plain, DataType::FixedSizeBinary(16) | DataType::Decimal128(_, 0) | DataType::Decimal256(_, 0))
}

/// A column as texts; a row that is not UTF-8 is refused.
pub(in crate::read) fn texts(
    name: &str,
    array: &ArrayRef,
    errors: &mut [Option<String>],
) -> Result<StringArray, ArrowError> {
    let plain = cast(array, &plain_type(array.data_type()))?;
    if !matches!(plain.data_type(), DataType::Binary | DataType::LargeBinary) {
        return Ok(cast(&plain, &DataType::Utf8)?.as_string().clone());
    }
    let bytes = cast(&plain, &DataType::Binary)?;
    let bytes = bytes.as_binary::<i32>();
    if let Ok(texts) = StringArray::try_from_binary(bytes.clone()) {
        return Ok(texts);
    }
    let text = |(row, value): (usize, Option<&[u8]>)| match str::from_utf8(value?) {
        Ok(text) => Some(text.to_owned()),
        Err(error) => {
            let at = error.valid_up_to();
            errors[row].get_or_insert_with(|| format!("`{name}` is not UTF-8: a bad byte at {at}"));
            None
        }
    };
    Ok(bytes.iter().enumerate().map(text).collect())
}

/// A column as ids: texts, the digits of integers, UUIDs.
pub(crate) fn ids(name: &str, array: &ArrayRef, errors: &mut [Option<String>]) -> Result<StringArray, ArrowError> {
    let plain = cast(array, &plain_type(array.data_type()))?;
    match plain.data_type() {
        DataType::FixedSizeBinary(16) => {
            let uuid = |bytes: &[u8]| Uuid::from_slice(bytes).ok().map(|uuid| uuid.to_string());
            Ok(plain.as_fixed_size_binary().iter().map(|bytes| bytes.and_then(uuid)).collect())
        }
        // Integers with nulls, as pandas writes them.
        kind if kind.is_floating() => {
            let whole = column(name, &plain, &DataType::Int64, errors)?;
            let digits = cast(&whole, &DataType::Utf8)?;
            // The truncated number of a refused row may be another document's id.
            let good = |(digits, error): (_, &Option<String>)| if error.is_none() { digits } else { None };
            Ok(digits.as_string::<i32>().iter().zip(&*errors).map(good).collect::<StringArray>())
        }
        _ => texts(name, &plain, errors),
    }
}

/// A column in its type of the table.
pub(crate) fn column(
    name: &str,
    array: &ArrayRef,
    to: &DataType,
    errors: &mut [Option<String>],
) -> Result<ArrayRef, ArrowError> {
    let plain = cast(array, &plain_type(array.data_type()))?;
    if plain.data_type() == to {
        return Ok(plain);
    }
    if plain.null_count() == plain.len() {
        return Ok(new_null_array(to, plain.len()));
    }
    let from = plain.data_type().clone();
    if from == DataType::Utf8 && to.is_floating() {
        let exact: Float64Array = plain.as_string::<i32>().iter().map(|text| exact_float(text?)).collect();
        refuse(name, &plain, to, errors, |row| exact.is_valid(row));
        return column(name, &(Arc::new(exact) as ArrayRef), to, errors);
    }
    if !comparable(&from, to) {
        refuse(name, &plain, to, errors, |_| false);
        return Ok(new_null_array(to, plain.len()));
    }
    // A cast may lose something without an error: casting back shows it.
    let lenient = CastOptions { safe: true, ..CastOptions::default() };
    let there_and_back = |array: &ArrayRef| -> Result<(ArrayRef, ArrayRef), ArrowError> {
        let typed = cast_with_options(array, to, &lenient)?;
        let back = cast_with_options(&typed, &from, &lenient)?;
        Ok((typed, back))
    };
    let Ok((typed, back)) = there_and_back(&plain) else {
        // There is no cast between the types, or a value in a list overflows: each row is cast alone.
        let one = |row: usize| there_and_back(&plain.slice(row, 1)).ok();
        let rows: Vec<_> =
            (0..plain.len()).map(|row| one(row).filter(|(_, back)| same(back, 0, &plain, row))).collect();
        refuse(name, &plain, to, errors, |row| rows[row].is_some());
        let missing = new_null_array(to, 1);
        let parts: Vec<&dyn Array> =
            rows.iter().map(|row| row.as_ref().map_or(&*missing, |(typed, _)| &**typed)).collect();
        return arrow::compute::concat(&parts);
    };
    if *back != *plain {
        refuse(name, &plain, to, errors, |row| same(&back, row, &plain, row));
    }
    Ok(typed)
}

fn same(a: &ArrayRef, at: usize, b: &ArrayRef, row: usize) -> bool {
    let float = |array: &ArrayRef, row: usize| array.as_primitive_opt::<Float64Type>().map(|array| array.value(row));
    *a.slice(at, 1) == *b.slice(row, 1)
        || a.is_valid(at) && b.is_valid(row) && matches!((float(a, at), float(b, row)), (Some(a), Some(b)) if a == b)
}

fn refuse(name: &str, array: &ArrayRef, to: &DataType, errors: &mut [Option<String>], fits: impl Fn(usize) -> bool) {
    for (row, error) in errors.iter_mut().enumerate() {
        if error.is_none() && array.is_valid(row) && !fits(row) {
            let value = array_value_to_string(array, row).unwrap_or_default();
            *error = Some(does_not_fit(name, &value, to));
        }
    }
}

/// The message about a value for which its row is refused.
pub(in crate::read) fn does_not_fit(name: &str, value: &str, to: &DataType) -> String {
    let short = &value[..value.floor_char_boundary(MAX_SHOWN_BYTES)];
    let more = if short.len() < value.len() { "…" } else { "" };
    format!("column `{name}`: the value {short:?}{more} does not fit the type {to} without a change")
}
