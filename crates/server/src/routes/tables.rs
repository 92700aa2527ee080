//! `GET /v1/tables`: the tables that are served.

use arrow::datatypes::Field;
use axum::{Json, extract::State, routing::get};
use polylance_schema::Contract;
use polylance_search::{SearchError, SearchTable};
use schemars::JsonSchema;
use serde::Serialize;

use super::route::Route;
use crate::{
    columns::{facet, has_spans, is_mapped, model_name},
    error::ApiError,
    executor::RequestClass,
    openapi::Operation,
    state::App,
};

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TablesResponse {
    /// Sorted by name.
    pub(super) tables: Vec<TableDescription>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TableDescription {
    name: String,
    rows: u64,
    /// The version that is served; the server follows newer ones.
    version: u64,
    columns: Vec<TableColumn>,
    /// A description of how the vectors were made.
    model: Option<String>,
    /// The dimensions of the vectors.
    dim: Option<usize>,
    /// Columns whose values can be counted.
    facets: Vec<String>,
    /// Columns of entities.
    spans: Vec<String>,
    /// Whether the table has a full-text index.
    text_index: bool,
    /// Whether the table has a map.
    map: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TableColumn {
    name: String,
    /// The Arrow type.
    #[serde(rename = "type")]
    data_type: String,
    nullable: bool,
}

pub(super) fn route() -> Route {
    let operation = Operation::get("/v1/tables", "The tables that are served").response::<TablesResponse>();
    Route::new(operation, get(handler))
}

async fn handler(State(app): State<App>) -> Result<Json<TablesResponse>, ApiError> {
    Box::pin(tables(&app)).await.map(Json)
}

/// The tables that are served.
pub(super) async fn tables(app: &App) -> Result<TablesResponse, ApiError> {
    let response = app.execute(RequestClass::Search, async move |_, snapshot| {
        let mut tables = Vec::new();
        for (name, table) in snapshot.iter() {
            tables.push(describe(name, table).await.map_err(|error| ApiError::from_search(&error, Some(name)))?);
        }
        Ok(TablesResponse { tables })
    });
    response.await
}

async fn describe(name: &str, table: &SearchTable) -> Result<TableDescription, SearchError> {
    let schema = table.schema();
    let names = |is_wanted: fn(&Field) -> bool| {
        schema.fields().iter().filter(|field| is_wanted(field)).map(|field| field.name().clone()).collect()
    };
    let column = |field: &Field| TableColumn {
        name: field.name().clone(),
        data_type: field.data_type().to_string(),
        nullable: field.is_nullable(),
    };
    Ok(TableDescription {
        name: name.to_owned(),
        rows: Box::pin(table.count_rows(None)).await?,
        version: table.version(),
        columns: schema.fields().iter().map(|field| column(field)).collect(),
        model: table.contract().map(model_description),
        dim: table.contract().map(|contract| contract.dim),
        facets: names(|field| facet(field).is_some()),
        spans: names(has_spans),
        text_index: table.has_text_index(),
        map: is_mapped(&schema),
    })
}

/// The model without its folder.
fn model_description(contract: &Contract) -> String {
    let pooling = serde_json::to_value(contract.pooling).unwrap_or_default();
    let pooling = pooling.as_str().unwrap_or_default();
    format!("{} · {pooling} · {} · {}", model_name(contract), contract.dim, contract.dtype)
}
