//! Texts to vectors, without a table.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use polylance_backend::{Backend, BackendError, TokenizeSpec};
use polylance_engine::{EngineError, devices, models};
use polylance_schema::{Chunking, Dtype, Prompts};
use polylance_worker::DevicePool;
use pyo3::prelude::*;

use crate::{
    error::{raise, wrong},
    wait::wait,
};

/// Texts of one call to the pool: enough to sort by length, few enough to tokenize the next while these are computed.
const WINDOW_TEXTS: usize = 512;
/// Windows in work: the tokenizer is one ahead.
const WINDOWS: usize = 2;

/// A model on its devices.
#[pyclass(frozen, module = "polylance._polylance")]
pub(crate) struct Encoder {
    name: String,
    pool: Arc<DevicePool>,
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
    ) -> PyResult<Self> {
        let dtype = dtype.map(str::parse::<Dtype>).transpose().map_err(raise)?;
        let opened = wait(py, async {
            let (files, selection) = tokio::task::spawn_blocking(move || {
                Ok::<_, EngineError>((models::find(&model)?, devices::select(&devices, dtype)?))
            })
            .await??;
            let pool = models::open(&files, &selection, None).await?;
            Ok::<_, EngineError>((files.name().to_owned(), files.defaults().prompts.clone(), pool))
        })?;
        let (name, prompts, pool) = opened.map_err(raise)?;
        let limit = pool.info().max_tokens;
        if let Some(tokens) = max_tokens.filter(|tokens| *tokens > limit) {
            return Err(wrong(format!("max_tokens is {tokens}, and {name} takes at most {limit}")));
        }
        Ok(Self { name, pool: Arc::new(pool), prompts, max_tokens: max_tokens.unwrap_or(limit) })
    }

    /// The model's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Dimensions of a vector.
    #[getter]
    fn dim(&self) -> usize {
        self.pool.info().dim
    }

    /// Tokens of an input at most; a longer one is cut there.
    #[getter]
    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The model's own prompts, before a query and before a passage.
    #[getter]
    fn prompts(&self) -> (&str, &str) {
        (&self.prompts.query, &self.prompts.passage)
    }

    /// The vectors of texts, `[texts, dim]`, in their order. `progress` gets the number of texts that are done.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<String>,
        prompt: String,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (rows, dim) = (texts.len(), self.pool.info().dim);
        let spec = TokenizeSpec { prefix: prompt, chunking: Chunking::Truncate { max_tokens: self.max_tokens } };
        let mut windows = Vec::with_capacity(rows.div_ceil(WINDOW_TEXTS));
        let mut texts = texts.into_iter();
        while texts.len() > 0 {
            windows.push(texts.by_ref().take(WINDOW_TEXTS).collect::<Vec<_>>());
        }
        let encoded = wait(py, async {
            let mut values = Vec::with_capacity(rows * dim);
            let encoded = windows.into_iter().map(|window| encode_window(&self.pool, window, &spec));
            let mut encoded = stream::iter(encoded).buffered(WINDOWS);
            while let Some(window) = encoded.try_next().await? {
                values.extend(window);
                if let Some(progress) = &progress {
                    let called = Python::attach(|py| progress.call1(py, (values.len() / dim,)).map(drop));
                    if let Err(error) = called {
                        Python::attach(|py| error.write_unraisable(py, None));
                    }
                }
            }
            Ok::<_, BackendError>(values)
        })?;
        PyArray1::from_vec(py, encoded.map_err(raise)?).reshape([rows, dim])
    }
}

async fn encode_window(pool: &DevicePool, texts: Vec<String>, spec: &TokenizeSpec) -> Result<Vec<f32>, BackendError> {
    let documents = pool.tokenize(texts, spec).await?;
    let inputs = documents.into_iter().filter_map(|chunks| chunks.into_iter().next()).map(|chunk| chunk.input_ids);
    Ok(pool.encode(inputs.collect()).await?.values)
}
