//! JSON values as a column of the table. A row with a value that would change is refused.

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, StringArray, StructArray, UInt64Array,
        new_null_array,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, FieldRef},
    error::ArrowError,
};

use super::json::Json;
use crate::read::types::{
    exact::{self, does_not_fit},
    kind::exact_number,
};

/// A kept column, from its values as written.
pub(super) fn column(
    field: &FieldRef,
    raw: &[Option<String>],
    errors: &mut [Option<String>],
) -> Result<ArrayRef, ArrowError> {
    if field.data_type() == &DataType::Utf8 {
        return Ok(Arc::new(raw.iter().map(|raw| text(raw.as_deref()?)).collect::<StringArray>()));
    }
    let mut values = Vec::with_capacity(raw.len());
    for (raw, error) in raw.iter().zip(&mut *errors) {
        let value = raw.as_deref().map_or(Ok(Json::Null), Json::parse);
        values.push(match value {
            Ok(value) if fits(&value, field.data_type()) => value,
            Ok(_) => {
                let raw = raw.as_deref().unwrap_or_default();
                error.get_or_insert_with(|| does_not_fit(field.name(), raw, field.data_type()));
                Json::Null
            }
            Err(message) => {
                error.get_or_insert_with(|| format!("column `{}`: {message}", field.name()));
                Json::Null
            }
        });
    }
    if is_json_type(field.data_type()) {
        return array(&values.iter().collect::<Vec<_>>(), field.data_type());
    }
    // A type of an existing table that JSON does not have.
    let texts: StringArray = raw.iter().zip(&values).map(|(raw, value)| scalar_text(raw.as_deref()?, value)).collect();
    exact::column(field.name(), &(Arc::new(texts) as ArrayRef), field.data_type(), errors)
}

/// A string's text, or another value as written; `None` for null.
fn text(raw: &str) -> Option<Cow<'_, str>> {
    if raw.starts_with('"') {
        return match Json::parse(raw) {
            Ok(Json::Text(text)) => Some(text),
            _ => Some(Cow::Borrowed(raw)),
        };
    }
    (raw != "null").then_some(Cow::Borrowed(raw))
}

fn scalar_text<'a>(raw: &'a str, value: &'a Json<'_>) -> Option<&'a str> {
    match value {
        Json::Text(text) => Some(text),
        Json::Number(_) => Some(raw),
        _ => None,
    }
}

/// Whether JSON values become this type directly.
fn is_json_type(to: &DataType) -> bool {
    match to {
        DataType::Utf8 | DataType::Boolean | DataType::Int64 | DataType::UInt64 | DataType::Float64 => true,
        DataType::List(item) => is_json_type(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_json_type(field.data_type())),
        _ => false,
    }
}

fn fits(value: &Json<'_>, to: &DataType) -> bool {
    match (value, to) {
        (Json::Null, _) | (Json::Bool(_), DataType::Boolean) | (Json::Text(_), DataType::Utf8) => true,
        (Json::Number(raw), DataType::Int64) => int(raw).is_some(),
        (Json::Number(raw), DataType::UInt64) => raw.parse::<u64>().is_ok(),
        (Json::Number(raw), DataType::Float64) => exact_number(raw).is_some(),
        (Json::List(items), DataType::List(item)) => items.iter().all(|value| fits(value, item.data_type())),
        // A member that the type lacks would be lost.
        (Json::Object(members), DataType::Struct(fields)) => members.iter().all(|(name, value)| {
            matches!(value, Json::Null) || fields.find(name).is_some_and(|(_, field)| fits(value, field.data_type()))
        }),
        (Json::Number(_) | Json::Text(_), to) => !is_json_type(to) && !to.is_nested(),
        _ => false,
    }
}

/// The integer `7`, also written as `7.0`.
fn int(raw: &str) -> Option<i64> {
    raw.parse().ok().or_else(|| {
        let value = exact_number(raw)?;
        (value.fract() == 0.0 && value.abs() <= (1_u64 << 53) as f64).then_some(value as i64)
    })
}

/// Values that fit a type, as an array.
fn array(values: &[&Json<'_>], to: &DataType) -> Result<ArrayRef, ArrowError> {
    let number = |value: &Json<'_>| if let Json::Number(raw) = value { Some((*raw).to_owned()) } else { None };
    Ok(match to {
        DataType::Boolean => {
            let flag = |value: &&Json<'_>| if let Json::Bool(flag) = value { Some(*flag) } else { None };
            Arc::new(values.iter().map(flag).collect::<BooleanArray>())
        }
        DataType::Int64 => Arc::new(values.iter().map(|v| int(&number(v)?)).collect::<Int64Array>()),
        DataType::UInt64 => Arc::new(values.iter().map(|v| number(v)?.parse().ok()).collect::<UInt64Array>()),
        DataType::Float64 => Arc::new(values.iter().map(|v| exact_number(&number(v)?)).collect::<Float64Array>()),
        DataType::Utf8 => {
            let text = |value: &&Json<'_>| if let Json::Text(text) = value { Some(text.to_string()) } else { None };
            Arc::new(values.iter().map(text).collect::<StringArray>())
        }
        DataType::List(item) => {
            let items = |value: &Json<'_>| if let Json::List(items) = value { items.len() } else { 0 };
            let offsets = OffsetBuffer::from_lengths(values.iter().map(|value| items(value)));
            let valid: NullBuffer = values.iter().map(|value| matches!(value, Json::List(_))).collect();
            let inner: Vec<&Json<'_>> = values
                .iter()
                .flat_map(|value| if let Json::List(items) = value { items.as_slice() } else { &[] })
                .collect();
            Arc::new(ListArray::try_new(Arc::clone(item), offsets, array(&inner, item.data_type())?, Some(valid))?)
        }
        DataType::Struct(fields) => {
            let null = Json::Null;
            let member = |value: &&'_ Json<'_>, name: &str| match value {
                // The last member of a name counts, as in other parsers.
                Json::Object(members) => members.iter().rposition(|(member, _)| member == name),
                _ => None,
            };
            let columns = fields.iter().map(|field| {
                let inner: Vec<&Json<'_>> = values
                    .iter()
                    .map(|value| match (*value, member(value, field.name())) {
                        (Json::Object(members), Some(at)) => &members[at].1,
                        _ => &null,
                    })
                    .collect();
                array(&inner, field.data_type())
            });
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            let valid: NullBuffer = values.iter().map(|value| matches!(value, Json::Object(_))).collect();
            Arc::new(StructArray::try_new(fields.clone(), columns, Some(valid))?)
        }
        other => new_null_array(other, values.len()),
    })
}
