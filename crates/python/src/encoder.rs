//! Texts to vectors, without a table.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use polylance_backend::{Backend, BackendError, BackendHandle, TokenizeSpec};
use polylance_config::ByteSize;
use polylance_engine::{EngineError, devices, models};
use polylance_schema::{Chunking, Dtype, Prompts};
use pyo3::prelude::*;

use crate::{
    error::wrong,
    progress::Callback,
    table::Table,
    wait::{wait, wait_with_progress},
};

/// Number of texts in one call to the backend: enough to sort by length, few enough to tokenize the next while these
/// are computed.
const WINDOW_TEXTS: usize = 512;
/// Number of windows in progress: the tokenizer is one ahead.
const WINDOWS: usize = 2;
/// As in a pipeline file.
const MIN_MAX_TOKENS: usize = 8;

/// A model on its devices.
#[pyclass(frozen, module = "polylance._polylance")]
pub(crate) struct Encoder {
    name: String,
    backend: Arc<dyn Backend>,
    prompts: Prompts,
    max_tokens: usize,
}

#[pymethods]
impl Encoder {
    #[new]
    fn new(
        py: Python<'_>,
        model: String,
        devices: Vec<String>,
        dtype: Option<&str>,
        max_tokens: Option<usize>,
        memory: Option<&str>,
    ) -> PyResult<Self> {
        let dtype = dtype.map(str::parse::<Dtype>).transpose().map_err(|error| wrong(error.to_string()))?;
        let memory =
            memory.map(str::parse::<ByteSize>).transpose().map_err(|error| wrong(format!("memory: {error}")))?;
        let (name, prompts, pool) = wait(py, async {
            let files = models::find(&model).await?;
            let selection = tokio::task::spawn_blocking(move || devices::select(&devices, dtype)).await??;
            let selection = selection.with_memory(memory.map(|limit| limit.0));
            let pool = models::open(&files, &selection, None).await?;
            Ok::<_, EngineError>((files.name().to_owned(), files.defaults().prompts.clone(), pool))
        })?;
        let limit = pool.info().max_tokens;
        if let Some(tokens) = max_tokens.filter(|tokens| !(MIN_MAX_TOKENS..=limit).contains(tokens)) {
            return Err(wrong(format!(
                "max_tokens must be from {MIN_MAX_TOKENS} to {limit} for {name}, found {tokens}"
            )));
        }
        Ok(Self { name, backend: Arc::new(pool), prompts, max_tokens: max_tokens.unwrap_or(limit) })
    }

    /// The model of a table, with the settings of its contract.
    #[staticmethod]
    fn of_table(py: Python<'_>, table: &Table) -> PyResult<Self> {
        let (contract, BackendHandle(backend)) = table.embedder(py)?;
        let max_tokens = contract.chunking.max_tokens();
        Ok(Self { name: contract.model, backend, prompts: contract.prompts, max_tokens })
    }

    /// The model's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Dimensions of a vector.
    #[getter]
    fn dim(&self) -> usize {
        self.backend.info().dim
    }

    /// Maximum number of tokens in an input, prompt and special tokens included; a longer one is truncated.
    #[getter]
    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The prompts before a query and before a passage.
    #[getter]
    fn prompts(&self) -> (&str, &str) {
        (&self.prompts.query, &self.prompts.passage)
    }

    /// The vectors of texts, `[texts, dim]`, in their order. `progress` receives the same values as that of a job: the
    /// stage, the number of texts that are done, the number of all, and the former again as the rows read.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<String>,
        prompt: String,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (rows, dim) = (texts.len(), self.dim());
        let spec = TokenizeSpec { prefix: prompt, chunking: Chunking::Truncate { max_tokens: self.max_tokens } };
        let mut windows = Vec::with_capacity(rows.div_ceil(WINDOW_TEXTS));
        let mut texts = texts.into_iter();
        while texts.len() > 0 {
            windows.push(texts.by_ref().take(WINDOW_TEXTS).collect::<Vec<_>>());
        }
        let progress = Callback::new(progress);
        let values = wait_with_progress(py, &progress, async {
            let mut values = Vec::with_capacity(rows * dim);
            let windows = windows.into_iter().map(|window| encode_window(self.backend.as_ref(), window, &spec));
            let mut encoded = stream::iter(windows).buffered(WINDOWS);
            while let Some(window) = encoded.try_next().await? {
                values.extend(window);
                let done = (values.len() / dim) as u64;
                progress.call("encode", done, rows as u64, done);
            }
            Ok::<_, BackendError>(values)
        })?;
        PyArray1::from_vec(py, values).reshape([rows, dim])
    }
}

async fn encode_window(
    backend: &dyn Backend,
    texts: Vec<String>,
    spec: &TokenizeSpec,
) -> Result<Vec<f32>, BackendError> {
    let documents = backend.tokenize(texts, spec).await?;
    let inputs = documents.into_iter().filter_map(|chunks| chunks.into_iter().next()).map(|chunk| chunk.input_ids);
    Ok(backend.encode(inputs.collect()).await?.values)
}
