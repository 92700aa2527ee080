//! `GET /v1/tables/{name}/map`: the rows as points of a plane.

use arrow::{
    array::{AsArray, RecordBatch},
    compute::{cast, concat_batches},
    datatypes::{DataType, Float32Type, UInt32Type},
};
use axum::{Json, extract::State, routing::get};
use futures::TryStreamExt;
use polylance_schema::search::{MAP_X, MAP_Y};
use polylance_search::SearchError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::route::Route;
use crate::{
    columns::{facet_named, is_mapped, quote},
    error::ApiError,
    executor::RequestClass,
    extract::{PathParams, QueryParams},
    openapi::Operation,
    state::App,
};

const MAX_POINTS: usize = 200_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MapParams {
    /// A column of texts or labels by which points are colored.
    color: Option<String>,
    /// The maximum number of points; a larger table is sampled at regular intervals.
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    100_000
}

#[derive(Debug, Serialize, JsonSchema)]
struct MapResponse {
    points: MapPoints,
    /// The share of the vectors' variance that the plane shows, if known.
    explained: Option<f32>,
}

/// Each list has one value per point.
#[derive(Debug, Serialize, JsonSchema)]
struct MapPoints {
    x: Vec<f32>,
    y: Vec<f32>,
    doc_id: Vec<String>,
    chunk: Vec<u32>,
    color: Option<Vec<Option<String>>>,
}

pub(super) fn route() -> Route {
    let path = "/v1/tables/{name}/map";
    let operation =
        Operation::get(path, "The rows as points of a plane").query_params::<MapParams>().response::<MapResponse>();
    Route::new(operation, get(map))
}

async fn map(
    State(app): State<App>,
    PathParams(table): PathParams<String>,
    QueryParams(params): QueryParams<MapParams>,
) -> Result<Json<MapResponse>, ApiError> {
    if params.limit == 0 || params.limit > MAX_POINTS {
        return Err(ApiError::too_much("too_many_points", format!("limit is from 1 to {MAX_POINTS}")).param("limit"));
    }
    let map = app.execute_on_table(RequestClass::Statement, Some(&table), async move |_, snapshot, name, table| {
        if !is_mapped(&table.schema()) {
            return Err(ApiError::not_found("no_map", format!("the table `{name}` has no map")));
        }
        let color = params.color.as_deref().map(|color| facet_named(&table.schema(), color)).transpose()?;
        let api_error = |error: SearchError| ApiError::from_search(&error, Some(&name));
        let rows = Box::pin(table.count_rows(None)).await.map_err(api_error)?;
        let sql = statement(&name, color.as_deref(), rows.div_ceil(params.limit as u64).max(1));
        let batches = Box::pin(snapshot.sql.query(&sql)).await.map_err(api_error)?;
        let schema = batches.schema();
        let batches: Vec<RecordBatch> = batches.try_collect().await.map_err(|error| api_error(error.into()))?;
        let all =
            concat_batches(&schema, &batches).map_err(|error| api_error(SearchError::Sql(Box::new(error.into()))))?;
        Ok(MapResponse { points: points(&all).ok_or_else(unreadable_map)?, explained: None })
    });
    Ok(Json(map.await?))
}

/// Reads every `step`th row, so that the sample is spread over the table.
fn statement(table: &str, color: Option<&str>, step: u64) -> String {
    let color = color.map(|color| format!(", {color} AS color")).unwrap_or_default();
    let columns = format!("{MAP_X} AS x, {MAP_Y} AS y, doc_id, chunk{color}");
    let mapped = format!("{} WHERE {MAP_X} IS NOT NULL AND {MAP_Y} IS NOT NULL", quote(table));
    if step == 1 {
        return format!("SELECT {columns} FROM {mapped}");
    }
    format!("SELECT * FROM (SELECT {columns}, row_number() OVER () AS at FROM {mapped}) WHERE (at - 1) % {step} = 0")
}

fn points(batch: &RecordBatch) -> Option<MapPoints> {
    let floats = |name: &str| {
        let column = batch.column_by_name(name)?.as_primitive_opt::<Float32Type>()?;
        Some(column.values().to_vec())
    };
    let texts = |name: &str| cast(batch.column_by_name(name)?, &DataType::Utf8).ok();
    let ids = texts("doc_id")?;
    let color = texts("color");
    Some(MapPoints {
        x: floats("x")?,
        y: floats("y")?,
        doc_id: ids.as_string::<i32>().iter().map(|id| id.unwrap_or_default().to_owned()).collect(),
        chunk: batch.column_by_name("chunk")?.as_primitive_opt::<UInt32Type>()?.values().to_vec(),
        color: color.map(|color| color.as_string::<i32>().iter().map(|color| color.map(str::to_owned)).collect()),
    })
}

fn unreadable_map() -> ApiError {
    ApiError::not_found("no_map", "the table's map cannot be read: its columns have unexpected types")
}
