//! Embedding jobs.

use std::{fs::File, io::BufWriter, path::PathBuf, sync::Arc, time::Duration};

use arrow::{error::ArrowError, ipc::writer::StreamWriter};
use polylance_ballista::BallistaEngine;
use polylance_config::Pipeline;
use polylance_engine::{AnnotationSummary, ClusterOptions, EmbedOptions, EmbedPlan, Embedded, EngineError, RunSummary};
use pyo3::prelude::*;
use pyo3_arrow::input::AnyRecordBatch;
use serde::Serialize;
use serde_json::Value;

use crate::{
    annotate::fill,
    error::{as_json, raise, wrong},
    progress::{Callback, CallbackObserver},
    wait::{wait, wait_for_job},
};

/// Writes an Arrow stream into a file that a job can read, and returns the number of its rows and the names of its
/// columns. The caller removes the file.
///
/// The file is an IPC stream: in an IPC file, the batches of a column would have to share one dictionary.
#[pyfunction]
pub(crate) fn spool(py: Python<'_>, stream: AnyRecordBatch, path: PathBuf) -> PyResult<(u64, Vec<String>)> {
    let reader = stream.into_reader()?;
    let unreadable = |error: ArrowError| wrong(format!("the source's Arrow stream cannot be read: {error}"));
    py.detach(|| {
        let schema = reader.schema();
        let file = BufWriter::new(File::create(&path)?);
        let mut writer = StreamWriter::try_new(file, &schema).map_err(unreadable)?;
        let mut rows = 0;
        for batch in reader {
            Python::attach(|py| -> PyResult<()> { py.check_signals() })?;
            let batch = batch.map_err(unreadable)?;
            rows += batch.num_rows() as u64;
            writer.write(&batch).map_err(unreadable)?;
        }
        writer.finish().map_err(unreadable)?;
        Ok((rows, schema.fields().iter().map(|field| field.name().clone()).collect()))
    })
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
    job(py, &pipeline, reread, &Callback::new(progress))
}

/// Runs a pipeline that is given as JSON, and returns the report as JSON.
#[pyfunction]
pub(crate) fn embed(py: Python<'_>, pipeline: &str, reread: bool, progress: Option<Py<PyAny>>) -> PyResult<String> {
    let values: Value = serde_json::from_str(pipeline).map_err(|error| wrong(error.to_string()))?;
    let pipeline = Pipeline::from_values("settings", &values).map_err(raise)?;
    job(py, &pipeline, reread, &Callback::new(progress))
}

/// The report of a run and of the columns that it filled.
#[derive(Serialize)]
struct JobReport {
    #[serde(flatten)]
    summary: RunSummary,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<AnnotationSummary>,
}

fn job(py: Python<'_>, pipeline: &Pipeline, reread: bool, progress: &Callback) -> PyResult<String> {
    let plan = wait(py, async {
        let cluster = match &pipeline.cluster.url {
            Some(url) => {
                let engine = Arc::new(BallistaEngine::new(url.parse()?)?);
                Some(ClusterOptions::new(engine, &pipeline.cluster))
            }
            None => None,
        };
        let options = EmbedOptions { reread, cluster, ..EmbedOptions::default() };
        let plan = Box::pin(EmbedPlan::open(pipeline, options)).await?;
        plan.declare().await?;
        Ok::<_, EngineError>(plan)
    })?;
    let (shutdown, grace) = (plan.shutdown(), Duration::from_secs(pipeline.run.grace));
    let mut observer = CallbackObserver(progress);
    let Embedded { summary, columns, .. } =
        wait_for_job(py, &shutdown, grace, progress, Box::pin(plan.run(&mut observer)))?;
    let mut annotations = Vec::new();
    for column in columns {
        annotations.push(fill(py, column, grace, progress)?);
    }
    as_json(&JobReport { summary, annotations })
}
