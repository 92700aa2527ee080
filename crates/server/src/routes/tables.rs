//! `GET /v1/tables`: what is served.

use arrow::datatypes::{DataType, Field, Schema};
use axum::{Json, extract::State, routing::get};
use polylance_schema::{Contract, HeadContract, columns::RESERVED};
use polylance_search::{SearchError, SearchTable};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Route, map};
use crate::{error::ApiError, openapi::Operation, state::App, work::Kind};

#[derive(Debug, Serialize, JsonSchema)]
struct Listing {
    /// By name.
    tables: Vec<Table>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Table {
    name: String,
    rows: u64,
    /// The version that is served: newer ones follow by themselves.
    version: u64,
    columns: Vec<Column>,
    /// How the vectors were made, for people.
    model: Option<String>,
    /// Dimensions of the vectors.
    dim: Option<usize>,
    /// Columns by whose values hits can be counted.
    facets: Vec<String>,
    /// Columns of entities.
    spans: Vec<String>,
    /// Whether the table can be searched by words.
    text_index: bool,
    /// Whether there is a map of it.
    map: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Column {
    name: String,
    /// Its Arrow type.
    #[serde(rename = "type")]
    data_type: String,
    nullable: bool,
}

pub(super) fn route() -> Route {
    Route {
        operation: Operation::get("/v1/tables", "The tables that are served").answer::<Listing>(),
        handler: get(list),
    }
}

async fn list(State(app): State<App>) -> Result<Json<Listing>, ApiError> {
    let listing = app.work(Kind::Search, async move |_, snapshot| {
        let mut tables = Vec::new();
        for (name, table) in snapshot.iter() {
            tables.push(describe(name, table).await.map_err(|error| ApiError::of_search(&error, Some(name)))?);
        }
        Ok(Listing { tables })
    });
    Ok(Json(listing.await?))
}

async fn describe(name: &str, table: &SearchTable) -> Result<Table, SearchError> {
    let schema = table.schema();
    let names = |wanted: fn(&Field) -> bool| {
        schema.fields().iter().filter(|field| wanted(field)).map(|field| field.name().clone()).collect()
    };
    let column = |field: &Field| Column {
        name: field.name().clone(),
        data_type: field.data_type().to_string(),
        nullable: field.is_nullable(),
    };
    Ok(Table {
        name: name.to_owned(),
        rows: Box::pin(table.count_rows(None)).await?,
        version: table.version(),
        columns: schema.fields().iter().map(|field| column(field)).collect(),
        model: table.contract().map(model),
        dim: table.contract().map(|contract| contract.dim),
        facets: names(|field| facet(field).is_some()),
        spans: names(has_spans),
        text_index: table.has_text_index(),
        map: map::is_mapped(&schema),
    })
}

/// The model without the folder it was found in.
fn model(contract: &Contract) -> String {
    let pooling = serde_json::to_value(contract.pooling).unwrap_or_default();
    let pooling = pooling.as_str().unwrap_or_default();
    format!("{} · {pooling} · {} · {}", model_name(contract), contract.dim, contract.dtype)
}

/// The last part of where the model was found.
pub(super) fn model_name(contract: &Contract) -> &str {
    contract.model.trim_end_matches(['/', '\\']).rsplit(['/', '\\', ':']).next().unwrap_or_default()
}

/// The SQL of a column by whose values hits can be counted.
pub(super) fn facet(field: &Field) -> Option<String> {
    let quoted = quote(field.name());
    let kept = !RESERVED.contains(&field.name().as_str()) && !field.metadata().contains_key(HeadContract::METADATA_KEY);
    match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Boolean if kept => Some(quoted),
        DataType::Struct(fields) => {
            let label = fields.iter().any(|field| field.name() == "label" && is_text(field.data_type()));
            label.then(|| format!("get_field({quoted}, 'label')"))
        }
        _ => None,
    }
}

/// The SQL of the facet of this name.
pub(super) fn facet_named(schema: &Schema, column: &str) -> Result<String, ApiError> {
    let found = schema.fields().iter().find(|field| field.name() == column).and_then(|field| facet(field));
    found.ok_or_else(|| {
        let named = schema.fields().iter().filter(|field| facet(field).is_some()).map(|field| field.name().as_str());
        let hint = format!("those are {}", named.collect::<Vec<_>>().join(", "));
        ApiError::bad("no_facet", format!("`{column}` is no column of texts or labels to count by")).hint(hint)
    })
}

fn has_spans(field: &Field) -> bool {
    let DataType::List(item) = field.data_type() else { return false };
    let DataType::Struct(fields) = item.data_type() else { return false };
    ["label", "score", "start", "end", "text"].iter().all(|name| fields.iter().any(|field| field.name() == name))
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8)
}

/// A name as SQL reads it, whatever is in it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
