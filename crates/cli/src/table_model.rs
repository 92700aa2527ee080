//! The models that a table's contract names, opened when a search needs them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use futures::{FutureExt, future::BoxFuture};
use polylance_backend::{AnnotatorHandle, BackendHandle};
use polylance_encoder::{Dtype, ModelFiles};
use polylance_schema::{Contract, TaskSpec};
use polylance_search::{ModelSource, Models, SearchError};
use polylance_worker::{DevicePool, PoolOptions, TaskPool};

use crate::{
    error::{Result, UsageError},
    named::Head,
};

/// The table's model with the table's settings, checked to be the same weights.
///
/// # Errors
/// [`UsageError`] when `model` has other weights or another tokenizer than the contract says.
pub(crate) fn open(model: &str, contract: &Contract) -> Result<DevicePool> {
    let files = ModelFiles::find(model)?;
    let same = files.weights_hash()? == contract.weights_hash && files.tokenizer_hash()? == contract.tokenizer_hash;
    if !same {
        let error =
            UsageError::new(format!("{model} is not the model that the table was made with: its files have changed"));
        return Err(error
            .with_hint(format!("the table has {}; name its files with --model", contract.summary()))
            .into());
    }
    let dtype: Dtype = contract.dtype.parse()?;
    let dims = (contract.dim != files.config().hidden_size).then_some(contract.dim);
    let options = PoolOptions {
        dtype: Some(dtype),
        pooling: Some(contract.pooling),
        normalize: Some(contract.normalize),
        dims,
        ..PoolOptions::default()
    };
    Ok(DevicePool::open(&files, &options)?)
}

/// A cross-encoder.
///
/// # Errors
/// Those of the model's files and its head.
pub(crate) fn open_reranker(model: &str) -> Result<TaskPool> {
    let files = ModelFiles::find(model)?;
    Ok(TaskPool::open(&files, TaskSpec::Rerank, &PoolOptions::default())?)
}

/// The heads, by name.
///
/// # Errors
/// [`UsageError`] when two have one name; those of the models' files.
pub(crate) fn open_heads(heads: Vec<Head>) -> Result<BTreeMap<String, AnnotatorHandle>> {
    let mut opened = BTreeMap::new();
    for Head { name, spec, model } in heads {
        let pool = TaskPool::open(&ModelFiles::find(&model)?, spec, &PoolOptions::default())?;
        if opened.insert(name.clone(), AnnotatorHandle(Arc::new(pool))).is_some() {
            return Err(UsageError::new(format!("two heads are named `{name}`")).into());
        }
    }
    Ok(opened)
}

/// Models by contract: each is opened once, when it is first needed.
#[derive(Default)]
pub(crate) struct TableModels {
    /// Where the tables' model is now, when it has moved.
    model: Option<String>,
    reranker: Option<String>,
    heads: Vec<Head>,
    opened: Arc<Mutex<HashMap<String, Models>>>,
    opened_heads: Arc<Mutex<BTreeMap<String, AnnotatorHandle>>>,
}

impl TableModels {
    pub(crate) fn new(model: Option<String>, reranker: Option<String>) -> Self {
        Self { model, reranker, ..Self::default() }
    }

    /// With heads that are opened when a statement asks for them.
    pub(crate) fn with_heads(self, heads: Vec<Head>) -> Self {
        Self { heads, ..self }
    }
}

impl fmt::Debug for TableModels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableModels")
            .field("model", &self.model)
            .field("reranker", &self.reranker)
            .finish_non_exhaustive()
    }
}

impl ModelSource for TableModels {
    fn models(&self, contract: &Contract) -> BoxFuture<'static, Result<Models, SearchError>> {
        let (opened, contract, reranker) = (Arc::clone(&self.opened), contract.clone(), self.reranker.clone());
        let model = self.model.clone().unwrap_or_else(|| contract.model.clone());
        let opening = move || {
            // The lock is held while the model loads: a second statement waits for it instead of loading it again.
            let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(models) = opened.get(&contract.summary()) {
                return Ok(models.clone());
            }
            let embedder = BackendHandle(Arc::new(open(&model, &contract)?));
            let reranker = reranker.map(|model| open_reranker(&model)).transpose()?;
            let reranker = reranker.map(|pool| AnnotatorHandle(Arc::new(pool)));
            let models = Models { embedder: Some(embedder), reranker };
            opened.insert(contract.summary(), models.clone());
            Ok(models)
        };
        loading(opening)
    }

    fn head(&self, name: &str) -> BoxFuture<'static, Result<AnnotatorHandle, SearchError>> {
        let (opened, name) = (Arc::clone(&self.opened_heads), name.to_owned());
        let Some(head) = self.heads.iter().find(|head| head.name == name).cloned() else {
            let known: Vec<&str> = self.heads.iter().map(|head| head.name.as_str()).collect();
            let message = match known.as_slice() {
                [] => format!("there is no head named `{name}`: --head NAME=TASK:MODEL names one"),
                known => format!("there is no head named `{name}`: there are {}", known.join(", ")),
            };
            return std::future::ready(Err(SearchError::Query(message))).boxed();
        };
        loading(move || {
            let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
            if !opened.contains_key(&name) {
                opened.extend(open_heads(vec![head])?);
            }
            opened.get(&name).cloned().with_context(|| format!("the head {name} is not open"))
        })
    }
}

/// Runs on a thread that may wait for files.
fn loading<T: Send + 'static>(
    opening: impl FnOnce() -> Result<T> + Send + 'static,
) -> BoxFuture<'static, Result<T, SearchError>> {
    async move {
        let failed =
            |error: anyhow::Error| SearchError::Model(error.reallocate_into_boxed_dyn_error_without_backtrace());
        let opened = tokio::task::spawn_blocking(opening).await;
        opened.map_err(|error| failed(error.into()))?.map_err(failed)
    }
    .boxed()
}
