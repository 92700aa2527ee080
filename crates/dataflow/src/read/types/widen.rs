//! The type that holds the values of a column of two files.

use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION,
    DataType::{
        self, Binary, Boolean, Date32, Date64, Decimal128, FixedSizeList, Float32, Float64, Int8, Int16, Int32, Int64,
        LargeBinary, LargeList, LargeListView, LargeUtf8, List, ListView, Struct, Time32, Time64, Timestamp, UInt8,
        UInt16, UInt32, Utf8, Utf8View,
    },
    Field, FieldRef, Fields, TimeUnit,
};

/// The type in which a column is stored: views, dictionaries and runs become plain types, and a column of nulls text.
pub(crate) fn plain_type(data_type: &DataType) -> DataType {
    let plain = |field: &FieldRef| -> FieldRef {
        let kind = plain_type(field.data_type());
        if &kind == field.data_type() {
            Arc::clone(field)
        } else {
            Arc::new(field.as_ref().clone().with_data_type(kind))
        }
    };
    match data_type {
        Utf8View | LargeUtf8 | DataType::Null => Utf8,
        DataType::BinaryView => Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        List(item) | ListView(item) => List(plain(item)),
        LargeList(item) | LargeListView(item) => LargeList(plain(item)),
        FixedSizeList(item, size) => FixedSizeList(plain(item), *size),
        Struct(fields) => Struct(fields.iter().map(plain).collect()),
        other => other.clone(),
    }
}

/// The type of a column that has two types in its files. If none holds both, the first one is kept, and rows that do
/// not fit it are refused.
pub(crate) fn widen(first: &DataType, second: &DataType) -> DataType {
    if first == second || second.is_null() {
        return first.clone();
    }
    if first.is_null() {
        return second.clone();
    }
    match (first, second) {
        (a, b) if a.is_integer() && b.is_integer() => integers(a, b),
        (a, b) if a.is_floating() && b.is_floating() => {
            if matches!((a, b), (Float64, _) | (_, Float64)) {
                Float64
            } else {
                Float32
            }
        }
        // Small integers are exact in any float; the others are checked row by row.
        (a, b) if a.is_integer() && b.is_floating() || a.is_floating() && b.is_integer() => Float64,
        (Decimal128(p, s), Decimal128(q, t)) => decimals((*p, *s), (*q, *t)).unwrap_or_else(|| first.clone()),
        (Decimal128(p, s), b) if b.is_integer() => decimals((*p, *s), (20, 0)).unwrap_or_else(|| first.clone()),
        (a, Decimal128(p, s)) if a.is_integer() => decimals((*p, *s), (20, 0)).unwrap_or_else(|| first.clone()),
        (Timestamp(a, zone), Timestamp(b, _)) => Timestamp(finest(*a, *b), zone.clone()),
        (Date32 | Date64, Timestamp(..)) | (Date32, Date64) | (Time32(_), Time64(_)) => second.clone(),
        (Time32(a), Time32(b)) => Time32(finest(*a, *b)),
        (Time64(a), Time64(b)) => Time64(finest(*a, *b)),
        (DataType::Duration(a), DataType::Duration(b)) => DataType::Duration(finest(*a, *b)),
        (Binary, Utf8) => Utf8,
        (Binary | LargeBinary, Binary | LargeBinary) => LargeBinary,
        (List(a), List(b)) => List(item(a, b)),
        (List(a) | LargeList(a), List(b) | LargeList(b)) => LargeList(item(a, b)),
        (Struct(a), Struct(b)) => Struct(members(a, b)),
        _ => first.clone(),
    }
}

fn item(first: &FieldRef, second: &FieldRef) -> FieldRef {
    let kind = widen(first.data_type(), second.data_type());
    Arc::new(first.as_ref().clone().with_data_type(kind).with_nullable(true))
}

fn members(first: &Fields, second: &Fields) -> Fields {
    let more = second.iter().filter(|field| first.find(field.name()).is_none());
    let joined = first.iter().map(|field| match second.find(field.name()) {
        Some((_, other)) => item(field, other),
        None => item(field, field),
    });
    joined.chain(more.map(|field| item(field, field))).collect()
}

fn integers(first: &DataType, second: &DataType) -> DataType {
    let bits = |kind: &DataType| match kind {
        Int8 | UInt8 => 8,
        Int16 | UInt16 => 16,
        Int32 | UInt32 => 32,
        _ => 64,
    };
    let signed = |kind: &DataType| matches!(kind, Int8 | Int16 | Int32 | Int64);
    if signed(first) == signed(second) {
        return if bits(first) >= bits(second) { first.clone() } else { second.clone() };
    }
    let (signed, unsigned) = if signed(first) { (first, second) } else { (second, first) };
    match bits(signed).max(2 * bits(unsigned)) {
        16 => Int16,
        32 => Int32,
        64 => Int64,
        _ => Decimal128(20, 0),
    }
}

fn decimals((p, s): (u8, i8), (q, t): (u8, i8)) -> Option<DataType> {
    let scale = s.max(t);
    let whole = (i16::from(p) - i16::from(s)).max(i16::from(q) - i16::from(t));
    let precision = u8::try_from(whole + i16::from(scale)).ok()?;
    (precision <= DECIMAL128_MAX_PRECISION).then_some(Decimal128(precision, scale))
}

fn finest(first: TimeUnit, second: TimeUnit) -> TimeUnit {
    let order = |unit: TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    if order(first) >= order(second) { first } else { second }
}

/// Whether a value of one type can keep its meaning in the other: `true` is no number, and a list is no text.
pub(crate) fn comparable(from: &DataType, to: &DataType) -> bool {
    let group = |kind: &DataType| match kind {
        Boolean => 1,
        Binary | LargeBinary | DataType::FixedSizeBinary(_) => 2,
        List(_) | LargeList(_) | FixedSizeList(..) => 3,
        Struct(_) => 4,
        DataType::Map(..) | DataType::Union(..) => 5,
        kind if kind.is_temporal() => 6,
        kind if kind.is_integer() || kind.is_floating() || kind.is_decimal() => 7,
        _ => 0,
    };
    match (from, to) {
        (Utf8, to) => matches!(group(to), 0 | 1 | 2 | 6 | 7),
        (from, Utf8) => matches!(group(from), 0 | 1 | 2 | 6 | 7),
        (from, to) => group(from) == group(to),
    }
}

/// A field of the table: of a plain type, and null where a file lacks the column.
pub(crate) fn stored(name: &str, data_type: &DataType) -> FieldRef {
    Arc::new(Field::new(name, plain_type(data_type), true))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType::{Float16, UInt64};

    use super::*;

    #[test]
    fn the_wider_type_holds_the_values_of_both() {
        let micro = Timestamp(TimeUnit::Microsecond, None);
        for (first, second, expected) in [
            (Int32, Int64, Int64),
            (UInt8, Int8, Int16),
            (UInt32, Int32, Int64),
            (UInt64, Int64, Decimal128(20, 0)),
            (Int64, Float64, Float64),
            (Float16, Float32, Float32),
            (DataType::Null, Int64, Int64),
            (Int64, Utf8, Int64),
            (Utf8, Int64, Utf8),
            (Decimal128(5, 2), Decimal128(6, 4), Decimal128(7, 4)),
            (Timestamp(TimeUnit::Second, None), micro.clone(), micro),
        ] {
            assert_eq!(widen(&first, &second), expected, "{first} and {second}");
        }
    }
}
