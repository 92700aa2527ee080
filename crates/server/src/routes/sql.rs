//! `POST /v1/sql`: a query over the tables.

use std::time::Instant;

use arrow::datatypes::FieldRef;
use axum::{Json, extract::State, routing::post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{elapsed::milliseconds_since, route::Route};
use crate::{
    error::ApiError,
    executor::RequestClass,
    extract::JsonBody,
    json::read_rows,
    openapi::Operation,
    redact::TableAddresses,
    state::App,
    statement::{Sensitivity, check_statement},
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SqlRequest {
    /// One query; it can search with functions such as `hybrid_search`.
    sql: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SqlResponse {
    columns: Vec<ResultColumn>,
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub(super) rows: Vec<Box<RawValue>>,
    /// Whether the result has more rows than a response may have.
    pub(super) truncated: bool,
    took_ms: f64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ResultColumn {
    name: String,
    /// The Arrow type.
    #[serde(rename = "type")]
    data_type: String,
}

pub(super) fn route() -> Route {
    let operation = Operation::post("/v1/sql", "A query over the tables; only reading is allowed")
        .body::<SqlRequest>()
        .response::<SqlResponse>();
    Route::new(operation, post(handler))
}

async fn handler(
    State(app): State<App>,
    JsonBody(request): JsonBody<SqlRequest>,
) -> Result<Json<SqlResponse>, ApiError> {
    Box::pin(sql(&app, request)).await.map(Json)
}

/// The rows of a query, within the limits.
pub(super) async fn sql(app: &App, request: SqlRequest) -> Result<SqlResponse, ApiError> {
    let started = Instant::now();
    let response = app.execute(RequestClass::Statement, async move |app, snapshot| {
        let addresses = &snapshot.addresses;
        let redacted = |error: ApiError| error.redacted(addresses);
        let sensitivity = check_statement(&request.sql, app.limits.max_statement_bytes).map_err(redacted)?;
        let read = Box::pin(read_rows(&snapshot, &request.sql, &app.limits)).await.map_err(redacted)?;
        let rows = match sensitivity {
            Sensitivity::Values => read.rows,
            Sensitivity::Addresses => redact_rows(&read.rows, addresses)?,
        };
        let column =
            |field: &FieldRef| ResultColumn { name: field.name().clone(), data_type: field.data_type().to_string() };
        let columns = read.schema.fields().iter().map(column).collect();
        Ok(SqlResponse { columns, rows, truncated: read.truncated, took_ms: 0.0 })
    });
    let response = response.await?;
    Ok(SqlResponse { took_ms: milliseconds_since(started), ..response })
}

/// Redacts the JSON text. JSON escapes no character of an address but a backslash, which no address of a store has.
fn redact_rows(rows: &[Box<RawValue>], addresses: &TableAddresses) -> Result<Vec<Box<RawValue>>, ApiError> {
    let redacted = rows.iter().map(|row| RawValue::from_string(addresses.redact(row.get()))).collect::<Result<_, _>>();
    redacted.map_err(|_| ApiError::bad("not_json", "a row is not valid JSON"))
}
