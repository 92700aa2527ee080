//! `GET /v1/tables/{name}/history`: what was done to a table, and what its runs could not read.

use axum::{Json, extract::State, routing::get};
use polylance_search::{QuarantineCount, VersionDescription};
use schemars::JsonSchema;
use serde::Serialize;

use super::Route;
use crate::{error::ApiError, extract::Names, openapi::Operation, state::App, work::Kind};

/// Versions that are told of: each costs a read.
const VERSIONS: usize = 200;

#[derive(Debug, Serialize, JsonSchema)]
struct Past {
    /// The latest versions, newest first.
    versions: Vec<Commit>,
    /// Rows in the quarantine now.
    quarantine: Vec<Quarantine>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Commit {
    version: u64,
    /// When it was committed, RFC 3339, UTC.
    time: String,
    /// The table's rows from then on.
    rows: Option<u64>,
    /// `Append`, `Update`, `CreateIndex`, …
    operation: Option<String>,
    /// The run that committed it.
    run_id: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Quarantine {
    run_id: String,
    /// Where the rows failed: `read`, `tokenize`, `encode`, …
    stage: String,
    rows: u64,
}

pub(super) fn route() -> Route {
    let path = "/v1/tables/{name}/history";
    Route {
        operation: Operation::get(path, "A table's versions with their runs, and its quarantine").answer::<Past>(),
        handler: get(history),
    }
}

async fn history(State(app): State<App>, Names(table): Names<String>) -> Result<Json<Past>, ApiError> {
    let past = app.work_on(Kind::Search, Some(&table), async move |_, _, name, table| {
        let past = Box::pin(table.history(VERSIONS)).await;
        let past = past.map_err(|error| ApiError::of_search(&error, Some(&name)))?;
        Ok(Past {
            versions: past.versions.into_iter().map(Commit::from).collect(),
            quarantine: past.quarantine.into_iter().map(Quarantine::from).collect(),
        })
    });
    Ok(Json(past.await?))
}

impl From<VersionDescription> for Commit {
    fn from(described: VersionDescription) -> Self {
        let VersionDescription { version, time, rows, operation, run_id } = described;
        Self { version, time, rows, operation, run_id }
    }
}

impl From<QuarantineCount> for Quarantine {
    fn from(QuarantineCount { run_id, stage, rows }: QuarantineCount) -> Self {
        Self { run_id, stage, rows }
    }
}
