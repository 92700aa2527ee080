//! `GET /v1/tables/{name}/map`: the rows as points of a plane.

use arrow::{
    array::{AsArray, RecordBatch},
    compute::{cast, concat_batches},
    datatypes::{DataType, Float32Type, Schema, UInt32Type},
};
use axum::{Json, extract::State, routing::get};
use futures::TryStreamExt;
use polylance_schema::search::{MAP_X, MAP_Y};
use polylance_search::SearchError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Route,
    tables::{facet_named, quote},
};
use crate::{
    error::ApiError,
    extract::{Names, Params},
    openapi::Operation,
    state::App,
    work::Kind,
};

/// Points at most.
const MOST: usize = 200_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// A column of texts or labels by which points are colored.
    color: Option<String>,
    /// Points at most: of a larger table every so many rows are taken.
    #[serde(default = "many")]
    limit: usize,
}

fn many() -> usize {
    100_000
}

#[derive(Debug, Serialize, JsonSchema)]
struct Map {
    points: Points,
    /// How much of the vectors' differences the plane shows, where that is known.
    explained: Option<f32>,
}

/// One value a point in each.
#[derive(Debug, Serialize, JsonSchema)]
struct Points {
    x: Vec<f32>,
    y: Vec<f32>,
    doc_id: Vec<String>,
    chunk: Vec<u32>,
    color: Option<Vec<Option<String>>>,
}

pub(super) fn route() -> Route {
    let path = "/v1/tables/{name}/map";
    Route {
        operation: Operation::get(path, "The rows as points of a plane").params::<Asked>().answer::<Map>(),
        handler: get(map),
    }
}

/// Whether the table has the columns of a map.
pub(super) fn is_mapped(schema: &Schema) -> bool {
    [MAP_X, MAP_Y]
        .iter()
        .all(|name| schema.field_with_name(name).is_ok_and(|field| *field.data_type() == DataType::Float32))
}

async fn map(
    State(app): State<App>,
    Names(table): Names<String>,
    Params(asked): Params<Asked>,
) -> Result<Json<Map>, ApiError> {
    if asked.limit == 0 || asked.limit > MOST {
        return Err(ApiError::too_much("too_many_points", format!("limit is from 1 to {MOST}")).param("limit"));
    }
    let map = app.work_on(Kind::Statement, Some(&table), async move |_, snapshot, name, table| {
        if !is_mapped(&table.schema()) {
            return Err(ApiError::not_found("no_map", format!("the table `{name}` has no map")));
        }
        let color = asked.color.as_deref().map(|color| facet_named(&table.schema(), color)).transpose()?;
        let refused = |error: SearchError| ApiError::of_search(&error, Some(&name));
        let rows = Box::pin(table.count_rows(None)).await.map_err(refused)?;
        let sql = statement(&name, color.as_deref(), rows.div_ceil(asked.limit as u64).max(1));
        let batches = Box::pin(snapshot.sql.query(&sql)).await.map_err(refused)?;
        let schema = batches.schema();
        let batches: Vec<RecordBatch> = batches.try_collect().await.map_err(|error| refused(error.into()))?;
        let all =
            concat_batches(&schema, &batches).map_err(|error| refused(SearchError::Sql(Box::new(error.into()))))?;
        Ok(Map { points: points(&all).ok_or_else(no_points)?, explained: None })
    });
    Ok(Json(map.await?))
}

/// Every `step`th row, so that a part of the table looks like the whole.
fn statement(table: &str, color: Option<&str>, step: u64) -> String {
    let color = color.map(|color| format!(", {color} AS color")).unwrap_or_default();
    let columns = format!("{MAP_X} AS x, {MAP_Y} AS y, doc_id, chunk{color}");
    let mapped = format!("{} WHERE {MAP_X} IS NOT NULL AND {MAP_Y} IS NOT NULL", quote(table));
    if step == 1 {
        return format!("SELECT {columns} FROM {mapped}");
    }
    format!("SELECT * FROM (SELECT {columns}, row_number() OVER () AS at FROM {mapped}) WHERE (at - 1) % {step} = 0")
}

fn points(batch: &RecordBatch) -> Option<Points> {
    let floats = |name: &str| {
        let column = batch.column_by_name(name)?.as_primitive_opt::<Float32Type>()?;
        Some(column.values().to_vec())
    };
    let texts = |name: &str| cast(batch.column_by_name(name)?, &DataType::Utf8).ok();
    let ids = texts("doc_id")?;
    let color = texts("color");
    Some(Points {
        x: floats("x")?,
        y: floats("y")?,
        doc_id: ids.as_string::<i32>().iter().map(|id| id.unwrap_or_default().to_owned()).collect(),
        chunk: batch.column_by_name("chunk")?.as_primitive_opt::<UInt32Type>()?.values().to_vec(),
        color: color.map(|color| color.as_string::<i32>().iter().map(|color| color.map(str::to_owned)).collect()),
    })
}

fn no_points() -> ApiError {
    ApiError::not_found("no_map", "the table's map cannot be read: its columns have other types")
}
