//! The history of a table: its versions, and the rows in its quarantine.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use futures::TryStreamExt;
use polylance_schema::columns::{RUN_ID, STAGE};

use crate::{
    SearchError, SearchTable, VersionDescription,
    describe::{describe_latest, quarantine, versions},
};

/// The history of a table.
#[derive(Debug, Clone)]
pub struct History {
    /// The latest versions, newest first.
    pub versions: Vec<VersionDescription>,
    /// Rows in the quarantine, by run and stage.
    pub quarantine: Vec<QuarantineCount>,
}

/// The number of rows that a run put into the quarantine at one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineCount {
    /// The run.
    pub run_id: String,
    /// The stage at which they failed: `scan`, `tokenize`, `encode`, …
    pub stage: String,
    /// The number of rows.
    pub rows: u64,
}

impl SearchTable {
    /// The latest `max_versions` versions, and the contents of the quarantine. Each version costs a read.
    ///
    /// # Errors
    /// [`SearchError::Storage`].
    pub async fn history(&self, max_versions: usize) -> Result<History, SearchError> {
        let versions = versions(self.uri(), self.dataset()).await?;
        let versions = describe_latest(self.dataset(), &versions, max_versions).await;
        let reading = |error| SearchError::storage(self.uri(), "reading the quarantine")(error);
        let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
        if let Some(quarantine) = quarantine(self.uri()).await? {
            let mut scanner = quarantine.scan();
            scanner.project(&[RUN_ID, STAGE]).map_err(reading)?;
            let mut batches = Box::pin(scanner.try_into_stream()).await.map_err(reading)?;
            while let Some(batch) = batches.try_next().await.map_err(reading)? {
                let (runs, stages) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
                for (run, stage) in runs.iter().zip(stages) {
                    let key = (run.unwrap_or_default().to_owned(), stage.unwrap_or_default().to_owned());
                    *counts.entry(key).or_default() += 1;
                }
            }
        }
        let quarantine =
            counts.into_iter().map(|((run_id, stage), rows)| QuarantineCount { run_id, stage, rows }).collect();
        Ok(History { versions, quarantine })
    }
}
