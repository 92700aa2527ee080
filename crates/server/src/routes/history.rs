//! `GET /v1/tables/{name}/history`: the versions of a table, and the rows that its runs could not process.

use axum::{Json, extract::State, routing::get};
use polylance_search::{QuarantineCount, VersionDescription};
use schemars::JsonSchema;
use serde::Serialize;

use super::route::Route;
use crate::{error::ApiError, executor::RequestClass, extract::PathParams, openapi::Operation, state::App};

/// Versions in a response: each costs a read.
const MAX_VERSIONS: usize = 200;

#[derive(Debug, Serialize, JsonSchema)]
struct HistoryResponse {
    /// The latest versions, newest first.
    versions: Vec<TableVersion>,
    /// Rows that are in the quarantine now.
    quarantine: Vec<QuarantinedRows>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TableVersion {
    version: u64,
    /// When it was committed, RFC 3339, UTC.
    time: String,
    /// The number of rows in this version.
    rows: Option<u64>,
    /// `Append`, `Update`, `CreateIndex`, …
    operation: Option<String>,
    /// The run that committed it.
    run_id: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct QuarantinedRows {
    run_id: String,
    /// Where the rows failed: `read`, `tokenize`, `encode`, …
    stage: String,
    rows: u64,
}

pub(super) fn route() -> Route {
    let path = "/v1/tables/{name}/history";
    let operation =
        Operation::get(path, "A table's versions with their runs, and its quarantine").response::<HistoryResponse>();
    Route::new(operation, get(history))
}

async fn history(
    State(app): State<App>,
    PathParams(table): PathParams<String>,
) -> Result<Json<HistoryResponse>, ApiError> {
    let response = app.execute_on_table(RequestClass::Search, Some(&table), async move |_, _, name, table| {
        let history = Box::pin(table.history(MAX_VERSIONS)).await;
        let history = history.map_err(|error| ApiError::from_search(&error, Some(&name)))?;
        Ok(HistoryResponse {
            versions: history.versions.into_iter().map(TableVersion::from).collect(),
            quarantine: history.quarantine.into_iter().map(QuarantinedRows::from).collect(),
        })
    });
    Ok(Json(response.await?))
}

impl From<VersionDescription> for TableVersion {
    fn from(version: VersionDescription) -> Self {
        let VersionDescription { version, time, rows, operation, run_id } = version;
        Self { version, time, rows, operation, run_id }
    }
}

impl From<QuarantineCount> for QuarantinedRows {
    fn from(QuarantineCount { run_id, stage, rows }: QuarantineCount) -> Self {
        Self { run_id, stage, rows }
    }
}
