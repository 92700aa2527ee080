//! Embedding jobs.

use std::{fs::File, io::BufWriter, path::PathBuf, time::Duration};

use arrow::{error::ArrowError, ipc::writer::FileWriter};
use polylance_config::Pipeline;
use polylance_engine::{EmbedOptions, EmbedPlan, Embedded, EngineError};
use pyo3::prelude::*;
use pyo3_arrow::input::AnyRecordBatch;
use serde_json::{Value, json};

use crate::{
    annotate::fill,
    error::{raise, wrong},
    progress::Callback,
    wait::{wait, wait_for_job},
};

/// Writes an Arrow stream into a file that a job can read; the directory is the caller's to remove.
#[pyfunction]
pub(crate) fn spool(py: Python<'_>, stream: AnyRecordBatch, path: PathBuf) -> PyResult<u64> {
    let reader = stream.into_reader()?;
    let written = py.detach(|| -> Result<u64, ArrowError> {
        let mut writer = FileWriter::try_new(BufWriter::new(File::create(&path)?), &reader.schema())?;
        let mut rows = 0;
        for batch in reader {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            writer.write(&batch)?;
        }
        writer.finish()?;
        Ok(rows)
    });
    written.map_err(|error| wrong(format!("the Arrow stream cannot be read: {error}")))
}

/// Runs a pipeline file, with `key=value` settings over its own, and returns the report as JSON.
#[pyfunction]
pub(crate) fn run(
    py: Python<'_>,
    path: PathBuf,
    settings: Vec<String>,
    reread: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let pipeline = Pipeline::read(&path, &settings).map_err(raise)?;
    job(py, &pipeline, reread, progress)
}

/// Runs a pipeline that is given as JSON, and returns the report as JSON.
#[pyfunction]
pub(crate) fn embed(py: Python<'_>, pipeline: &str, reread: bool, progress: Option<Py<PyAny>>) -> PyResult<String> {
    let pipeline: Pipeline = serde_json::from_str(pipeline).map_err(|error| wrong(error.to_string()))?;
    pipeline.validate().map_err(raise)?;
    job(py, &pipeline, reread, progress)
}

fn job(py: Python<'_>, pipeline: &Pipeline, reread: bool, progress: Option<Py<PyAny>>) -> PyResult<String> {
    let options = EmbedOptions { reread, only: None };
    let plan = wait(py, async {
        let plan = Box::pin(EmbedPlan::open(pipeline, options)).await?;
        plan.declare().await?;
        Ok::<_, EngineError>(plan)
    })?;
    let plan = plan.map_err(raise)?;
    let (shutdown, grace) = (plan.shutdown(), Duration::from_secs(pipeline.run.grace));
    let mut progress = Callback::new(progress);
    let embedded = wait_for_job(py, &shutdown, grace, Box::pin(plan.run(&mut progress)))?;
    let Embedded { summary, columns, .. } = embedded.map_err(raise)?;
    let mut annotations = Vec::new();
    for column in columns {
        annotations.push(fill(py, column, grace, &progress)?);
    }
    let mut report = json!(summary);
    if !annotations.is_empty() {
        report["annotations"] = Value::Array(annotations);
    }
    Ok(report.to_string())
}
