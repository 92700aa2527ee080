//! Bytes that identify one value of an Arrow column.
//!
//! A value is a tag and its content: numbers as fixed bytes, little-endian; texts and lists after their length; structs
//! after their number of fields, each with its name. So no two values have the same bytes, and none is a prefix of
//! another. The bytes depend on the value and not on how it is stored: a text in a dictionary, in a view or with large
//! offsets is the same text, and an integer is the same in every width. They never change: the content hashes of tables
//! depend on them.

use arrow::{
    array::{Array, ArrayRef, AsArray, StructArray},
    datatypes::{
        DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type, Float64Type,
        Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type, i256,
    },
    error::ArrowError,
};

/// Appends the bytes of row `row` of `array`.
pub(super) fn value_bytes(array: &dyn Array, row: usize, bytes: &mut Vec<u8>) -> Result<(), ArrowError> {
    if let DataType::Dictionary(..) = array.data_type() {
        let dictionary = array.as_any_dictionary();
        if dictionary.is_null(row) {
            bytes.push(b'n');
            return Ok(());
        }
        return value_bytes(dictionary.values(), dictionary.normalized_keys()[row], bytes);
    }
    if array.is_null(row) {
        bytes.push(b'n');
        return Ok(());
    }
    match array.data_type() {
        DataType::Null => bytes.push(b'n'),
        DataType::Boolean => bytes.extend([b'b', u8::from(array.as_boolean().value(row))]),
        DataType::Utf8 => sized(b't', array.as_string::<i32>().value(row).as_bytes(), bytes),
        DataType::LargeUtf8 => sized(b't', array.as_string::<i64>().value(row).as_bytes(), bytes),
        DataType::Utf8View => sized(b't', array.as_string_view().value(row).as_bytes(), bytes),
        DataType::Binary => sized(b'x', array.as_binary::<i32>().value(row), bytes),
        DataType::LargeBinary => sized(b'x', array.as_binary::<i64>().value(row), bytes),
        DataType::BinaryView => sized(b'x', array.as_binary_view().value(row), bytes),
        DataType::FixedSizeBinary(_) => sized(b'x', array.as_fixed_size_binary().value(row), bytes),
        DataType::List(_) => items(&array.as_list::<i32>().value(row), bytes)?,
        DataType::LargeList(_) => items(&array.as_list::<i64>().value(row), bytes)?,
        DataType::ListView(_) => items(&array.as_list_view::<i32>().value(row), bytes)?,
        DataType::LargeListView(_) => items(&array.as_list_view::<i64>().value(row), bytes)?,
        DataType::FixedSizeList(..) => items(&array.as_fixed_size_list().value(row), bytes)?,
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            length(b'm', entries.len(), bytes);
            for entry in 0..entries.len() {
                value_bytes(entries.column(0), entry, bytes)?;
                value_bytes(entries.column(1), entry, bytes)?;
            }
        }
        DataType::Struct(_) => fields(array.as_struct(), row, bytes)?,
        DataType::Union(..) => {
            let union = array.as_union();
            bytes.extend([b'u', union.type_id(row) as u8]);
            value_bytes(&union.value(row), 0, bytes)?;
        }
        _ => number(array, row, bytes)?,
    }
    Ok(())
}

fn length(tag: u8, length: usize, bytes: &mut Vec<u8>) {
    bytes.push(tag);
    bytes.extend((length as u64).to_le_bytes());
}

fn sized(tag: u8, value: &[u8], bytes: &mut Vec<u8>) {
    length(tag, value.len(), bytes);
    bytes.extend(value);
}

fn items(items: &ArrayRef, bytes: &mut Vec<u8>) -> Result<(), ArrowError> {
    length(b'l', items.len(), bytes);
    (0..items.len()).try_for_each(|item| value_bytes(items, item, bytes))
}

/// Fields in the order of their names.
fn fields(array: &StructArray, row: usize, bytes: &mut Vec<u8>) -> Result<(), ArrowError> {
    let names = array.column_names();
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|&field| names[field]);
    length(b's', order.len(), bytes);
    for field in order {
        sized(b't', names[field].as_bytes(), bytes);
        value_bytes(array.column(field), row, bytes)?;
    }
    Ok(())
}

/// A value of fixed width.
fn number(array: &dyn Array, row: usize, bytes: &mut Vec<u8>) -> Result<(), ArrowError> {
    macro_rules! integer {
        ($type:ty) => {{
            bytes.push(b'i');
            bytes.extend(i128::from(array.as_primitive::<$type>().value(row)).to_le_bytes());
        }};
    }
    macro_rules! decimal {
        ($type:ty, $scale:expr, $wide:expr) => {{
            bytes.extend([b'd', $scale.to_le_bytes()[0]]);
            bytes.extend($wide(array.as_primitive::<$type>().value(row)).to_le_bytes());
        }};
    }
    match array.data_type() {
        DataType::Int8 => integer!(Int8Type),
        DataType::Int16 => integer!(Int16Type),
        DataType::Int32 => integer!(Int32Type),
        DataType::Int64 => integer!(Int64Type),
        DataType::UInt8 => integer!(UInt8Type),
        DataType::UInt16 => integer!(UInt16Type),
        DataType::UInt32 => integer!(UInt32Type),
        DataType::UInt64 => integer!(UInt64Type),
        DataType::Float16 => float(array.as_primitive::<Float16Type>().value(row).to_f64(), bytes),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row).into(), bytes),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row), bytes),
        DataType::Decimal32(_, scale) => decimal!(Decimal32Type, scale, |value| i256::from_i128(i128::from(value))),
        DataType::Decimal64(_, scale) => decimal!(Decimal64Type, scale, |value| i256::from_i128(i128::from(value))),
        DataType::Decimal128(_, scale) => decimal!(Decimal128Type, scale, i256::from_i128),
        DataType::Decimal256(_, scale) => decimal!(Decimal256Type, scale, std::convert::identity),
        DataType::Date32 | DataType::Date64 => moment(b'D', array, None, row, bytes),
        DataType::Time32(unit) | DataType::Time64(unit) => moment(b'T', array, Some(unit), row, bytes),
        DataType::Timestamp(unit, _) => moment(b'S', array, Some(unit), row, bytes),
        DataType::Duration(unit) => moment(b'P', array, Some(unit), row, bytes),
        // Intervals, and types that Arrow may add: their fixed-width bytes identify the value.
        other => {
            let data = array.to_data();
            let width = other.primitive_width().ok_or_else(|| unsupported(other))?;
            let begin = (data.offset() + row) * width;
            let value = data.buffers().first().and_then(|buffer| buffer.get(begin..begin + width));
            sized(b'o', value.ok_or_else(|| unsupported(other))?, bytes);
        }
    }
    Ok(())
}

fn unsupported(found: &DataType) -> ArrowError {
    ArrowError::NotYetImplemented(format!("a content hash of {found}"))
}

/// All NaN are one value; the two zeros are two, because a table keeps the sign.
fn float(value: f64, bytes: &mut Vec<u8>) {
    let value = if value.is_nan() { f64::NAN } else { value };
    bytes.push(b'f');
    bytes.extend(value.to_bits().to_le_bytes());
}

/// A number of days, or of a unit of time. Dates of 64 bits count milliseconds.
fn moment(tag: u8, array: &dyn Array, unit: Option<&TimeUnit>, row: usize, bytes: &mut Vec<u8>) {
    let unit = match (unit, array.data_type()) {
        (None, DataType::Date64) | (Some(TimeUnit::Millisecond), _) => 3,
        (None, _) => 255,
        (Some(TimeUnit::Second), _) => 0,
        (Some(TimeUnit::Microsecond), _) => 6,
        (Some(TimeUnit::Nanosecond), _) => 9,
    };
    let data = array.to_data();
    let value = match data.data_type().primitive_width() {
        Some(4) => data.buffer::<i32>(0)[row].into(),
        _ => data.buffer::<i64>(0)[row],
    };
    bytes.extend([tag, unit]);
    bytes.extend(value.to_le_bytes());
}
