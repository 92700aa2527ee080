//! `POST /v1/sql`: a query over the tables.

use std::time::Instant;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, SchemaRef},
};
use axum::{Json, extract::State, routing::post};
use futures::TryStreamExt;
use polylance_search::SearchError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{Route, search::milliseconds};
use crate::{
    Limits,
    addresses::Addresses,
    error::ApiError,
    extract::JsonBody,
    openapi::Operation,
    rows::rows,
    state::App,
    statement::{self, Tells},
    tables::Snapshot,
    work::Kind,
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// One query; it may search too, with `hybrid_search` and its like.
    sql: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Answer {
    columns: Vec<Column>,
    #[schemars(with = "Vec<Map<String, Value>>")]
    rows: Vec<Box<RawValue>>,
    /// Whether there are more rows than one answer may have.
    truncated: bool,
    took_ms: f64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Column {
    name: String,
    /// Its Arrow type.
    #[serde(rename = "type")]
    data_type: String,
}

pub(super) fn route() -> Route {
    Route {
        operation: Operation::post("/v1/sql", "A query over the tables, reading only")
            .body::<Asked>()
            .answer::<Answer>(),
        handler: post(sql),
    }
}

async fn sql(State(app): State<App>, JsonBody(asked): JsonBody<Asked>) -> Result<Json<Answer>, ApiError> {
    let started = Instant::now();
    let answer = app.work(Kind::Statement, async move |app, snapshot| {
        let addresses = &snapshot.addresses;
        let hidden = |error| addresses.hide_in(error);
        let tells = statement::check(&asked.sql, app.limits.statement).map_err(hidden)?;
        let read = Box::pin(read(&snapshot, &asked.sql, &app.limits)).await.map_err(hidden)?;
        let rows = match tells {
            Tells::Rows => read.rows,
            Tells::Plans => without_addresses(&read.rows, addresses)?,
        };
        let column = |field: &arrow::datatypes::FieldRef| Column {
            name: field.name().clone(),
            data_type: field.data_type().to_string(),
        };
        let columns = read.schema.fields().iter().map(column).collect();
        Ok(Answer { columns, rows, truncated: read.truncated, took_ms: 0.0 })
    });
    let answer = answer.await?;
    Ok(Json(Answer { took_ms: milliseconds(started), ..answer }))
}

/// Addresses have no character that JSON writes otherwise, but a backslash: and that one, no address of a store has.
fn without_addresses(rows: &[Box<RawValue>], addresses: &Addresses) -> Result<Vec<Box<RawValue>>, ApiError> {
    let hidden = rows.iter().map(|row| RawValue::from_string(addresses.hide(row.get()))).collect::<Result<_, _>>();
    hidden.map_err(|_| ApiError::bad("not_json", "a row is no JSON"))
}

/// Rows of a statement.
pub(super) struct Read {
    pub(super) schema: SchemaRef,
    pub(super) rows: Vec<Box<RawValue>>,
    pub(super) truncated: bool,
}

/// Reads a statement's rows until there are enough of them.
pub(super) async fn read(snapshot: &Snapshot, sql: &str, limits: &Limits) -> Result<Read, ApiError> {
    let refused = |error: SearchError| ApiError::of_search(&error, None);
    let mut batches = Box::pin(snapshot.sql.query(sql)).await.map_err(refused)?;
    let mut read = Read { schema: batches.schema(), rows: Vec::new(), truncated: false };
    let mut bytes = 0;
    while let Some(batch) = batches.try_next().await.map_err(|error| refused(SearchError::from(error)))? {
        let room = limits.rows - read.rows.len();
        read.truncated = batch.num_rows() > room;
        // In parts, so that a row too many is found before all rows are text.
        let shown = batch.num_rows().min(room);
        let mut first = 0;
        while first < shown {
            let part = part(&batch.slice(first, PART.min(shown - first)));
            first += part.num_rows();
            for row in rows(&part)? {
                bytes += row.get().len();
                if bytes > limits.answer {
                    read.truncated = true;
                    return Ok(read);
                }
                read.rows.push(row);
            }
        }
        if read.truncated {
            break;
        }
    }
    Ok(read)
}

/// Rows that become text together, and about how many bytes they may have unless it is one row.
const PART: usize = 256;
const PART_BYTES: usize = 1 << 20;

/// The first rows that are not too large together.
fn part(rows: &RecordBatch) -> RecordBatch {
    let mut part = rows.clone();
    while part.num_rows() > 1 && bytes(&part) > PART_BYTES {
        part = part.slice(0, part.num_rows() / 2);
    }
    part
}

fn bytes(rows: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| match column.data_type() {
        // Where the texts lie is not counted with a view.
        DataType::Utf8View => column.as_string_view().views().iter().map(|view| *view as u32 as usize).sum(),
        _ => column.to_data().get_slice_memory_size().unwrap_or(PART_BYTES),
    };
    rows.columns().iter().map(bytes).sum()
}
