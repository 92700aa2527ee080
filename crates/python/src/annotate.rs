//! Columns that heads fill.

use std::time::Duration;

use polylance_config::{Pipeline, Run};
use polylance_engine::{AnnotateRequest, AnnotationSummary, ResolvedColumn, ShutdownSignal, devices, resolve};
use polylance_schema::CommitPolicy;
use pyo3::prelude::*;
use serde_json::{Value, json};

use crate::{
    error::{as_json, raise, wrong},
    progress::Callback,
    wait::{wait, wait_for_job},
};

/// Fills a column of the table, which is given as JSON as in `[[annotate]]`, and returns the report as JSON.
#[pyfunction]
pub(crate) fn annotate(
    py: Python<'_>,
    table: String,
    column: &str,
    devices: Vec<String>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let values: Value = serde_json::from_str(column).map_err(|error| wrong(error.to_string()))?;
    // In a whole pipeline, its keys are checked as in a file.
    let pipeline =
        json!({"version": 1, "source": {"uri": "builtin:udhr"}, "table": {"uri": table}, "annotate": [values]});
    let columns = Pipeline::from_values("settings", &pipeline).map_err(raise)?.annotate;
    let mut columns = wait(py, async {
        let dtype = resolve::dtype_of_table(&table).await?;
        let selection = devices::select(&devices, dtype)?;
        let request = AnnotateRequest { table, columns, selection, commit: CommitPolicy::default(), stall: None };
        request.resolve().await
    })?;
    let column = columns.pop().ok_or_else(|| wrong("a column is needed"))?;
    let grace = Duration::from_secs(Run::default().grace);
    as_json(&fill(py, column, grace, &Callback::new(progress))?)
}

/// Fills one column and returns its report.
pub(crate) fn fill(
    py: Python<'_>,
    column: ResolvedColumn,
    grace: Duration,
    progress: &Callback,
) -> PyResult<AnnotationSummary> {
    let shutdown = ShutdownSignal::default();
    wait_for_job(py, &shutdown, grace, progress, async {
        let open = column.open().await?;
        let (name, missing) = (open.name().to_owned(), open.missing());
        Box::pin(open.fill(&shutdown, &mut |done| progress.call(&name, done, missing, done))).await
    })
}
