//! What the columns of a table are good for, and their names in SQL.

use arrow::datatypes::{DataType, Field, Schema};
use polylance_schema::{
    Contract, HeadContract,
    columns::RESERVED,
    search::{MAP_X, MAP_Y},
};

use crate::error::ApiError;

/// A name as SQL reads it, whatever characters it has.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The SQL expression of a facet: a column whose values can be counted.
pub(crate) fn facet(field: &Field) -> Option<String> {
    let quoted = quote(field.name());
    let is_kept =
        !RESERVED.contains(&field.name().as_str()) && !field.metadata().contains_key(HeadContract::METADATA_KEY);
    match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Boolean if is_kept => Some(quoted),
        DataType::Struct(fields) => {
            let has_label = fields.iter().any(|field| field.name() == "label" && is_text(field.data_type()));
            has_label.then(|| format!("get_field({quoted}, 'label')"))
        }
        _ => None,
    }
}

/// The SQL expression of the facet of this name.
pub(crate) fn facet_named(schema: &Schema, column: &str) -> Result<String, ApiError> {
    let found = schema.fields().iter().find(|field| field.name() == column).and_then(|field| facet(field));
    found.ok_or_else(|| {
        let facets = schema.fields().iter().filter(|field| facet(field).is_some()).map(|field| field.name().as_str());
        let hint = format!("those are {}", facets.collect::<Vec<_>>().join(", "));
        ApiError::bad("no_facet", format!("`{column}` is not a column of texts, booleans or labels")).hint(hint)
    })
}

/// Whether the column contains entities.
pub(crate) fn has_spans(field: &Field) -> bool {
    let DataType::List(item) = field.data_type() else { return false };
    let DataType::Struct(fields) = item.data_type() else { return false };
    ["label", "score", "start", "end", "text"].iter().all(|name| fields.iter().any(|field| field.name() == name))
}

/// Whether the table has the columns of a map.
pub(crate) fn is_mapped(schema: &Schema) -> bool {
    [MAP_X, MAP_Y]
        .iter()
        .all(|name| schema.field_with_name(name).is_ok_and(|field| *field.data_type() == DataType::Float32))
}

/// The model's name without the folder or the organization it comes from.
pub(crate) fn model_name(contract: &Contract) -> &str {
    contract.model.trim_end_matches(['/', '\\']).rsplit(['/', '\\', ':']).next().unwrap_or_default()
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8)
}
