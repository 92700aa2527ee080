//! The models that a table's contract names, opened when a search needs them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt, future::BoxFuture};
use polylance_backend::{AnnotatorHandle, BackendHandle};
use polylance_encoder::ModelFiles;
use polylance_schema::{Contract, TaskSpec};
use polylance_search::{ModelSource, Models, QueryError, SearchError};
use polylance_worker::{DevicePool, PoolOptions, TaskPool};

use super::known::{self, TableModelPolicy};
use crate::{
    EngineError, UsageError,
    resolve::{select_devices, select_for_queries},
};

type Result<T, E = EngineError> = std::result::Result<T, E>;

/// A head that statements call by its name, before its model is loaded.
#[derive(Debug, Clone)]
pub struct NamedHead {
    /// The name.
    pub name: String,
    /// What the head does.
    pub spec: TaskSpec,
    /// A folder or a name on the hub.
    pub model: String,
}

/// The table's model with the table's settings, checked to be the same weights, on the selected devices.
///
/// # Errors
/// [`UsageError`] when `model` has other weights or another tokenizer than the contract says.
pub fn open_for_table(model: &str, contract: &Contract, devices: &[String]) -> Result<DevicePool> {
    let selection = select_for_queries(devices, contract)?;
    let files = ModelFiles::find(model)?.as_in_table(&contract.tokenizer_hash)?;
    let same = files.weights_hash()? == contract.weights_hash && files.tokenizer_hash()? == contract.tokenizer_hash;
    if !same {
        let error =
            UsageError::new(format!("{model} is not the model that the table was made with: its files have changed"));
        return Err(error
            .with_hint(format!("the table has {}; name its files with --model", contract.summary()))
            .into());
    }
    let dims = (contract.dim != files.config().hidden_size).then_some(contract.dim);
    let options = PoolOptions {
        pooling: Some(contract.pooling),
        normalize: Some(contract.normalize),
        dims,
        ..selection.options()
    };
    Ok(DevicePool::open(&files, &options)?)
}

/// A cross-encoder.
///
/// # Errors
/// Those of the model's files and its head.
pub fn open_reranker(model: &str, devices: &[String]) -> Result<TaskPool> {
    let files = known::find(model)?;
    Ok(TaskPool::open(&files, TaskSpec::Rerank, &select_devices(devices, None)?.options())?)
}

/// The heads, by name.
///
/// # Errors
/// [`UsageError`] when two have one name; those of the models' files.
pub fn open_heads(heads: Vec<NamedHead>, devices: &[String]) -> Result<BTreeMap<String, AnnotatorHandle>> {
    let mut opened = BTreeMap::new();
    for NamedHead { name, spec, model } in heads {
        let pool = TaskPool::open(&known::find(&model)?, spec, &select_devices(devices, None)?.options())?;
        if opened.insert(name.clone(), AnnotatorHandle(Arc::new(pool))).is_some() {
            return Err(UsageError::new(format!("two heads are named `{name}`")).into());
        }
    }
    Ok(opened)
}

/// Models by contract: each is opened once, when it is first needed.
#[derive(Default)]
pub struct TableModels {
    policy: TableModelPolicy,
    reranker: Option<String>,
    devices: Vec<String>,
    heads: Vec<NamedHead>,
    opened: Arc<Mutex<HashMap<String, Models>>>,
    opened_heads: Arc<Mutex<BTreeMap<String, AnnotatorHandle>>>,
}

impl TableModels {
    /// Opens models on these devices, and with each a cross-encoder if one is named.
    pub fn new(policy: TableModelPolicy, reranker: Option<String>, devices: Vec<String>) -> Self {
        Self { policy, reranker, devices, ..Self::default() }
    }

    /// With heads that are opened when a statement calls them.
    #[must_use]
    pub fn with_heads(self, heads: Vec<NamedHead>) -> Self {
        Self { heads, ..self }
    }
}

impl fmt::Debug for TableModels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableModels")
            .field("policy", &self.policy)
            .field("reranker", &self.reranker)
            .field("devices", &self.devices)
            .finish_non_exhaustive()
    }
}

impl ModelSource for TableModels {
    fn models(&self, contract: &Contract) -> BoxFuture<'static, Result<Models, SearchError>> {
        let (opened, contract, reranker) = (Arc::clone(&self.opened), contract.clone(), self.reranker.clone());
        let policy = self.policy.clone();
        let devices = self.devices.clone();
        let opening = move || {
            // The lock is held while the model loads: a second statement waits for it instead of loading it again.
            let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(models) = opened.get(&contract.summary()) {
                return Ok(models.clone());
            }
            let model = policy.model_of(&contract)?;
            let embedder = BackendHandle(Arc::new(open_for_table(&model, &contract, &devices)?));
            // It was agreed to, and it is the table's.
            known::remember(&model);
            let reranker = reranker.map(|model| open_reranker(&model, &devices)).transpose()?;
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
            let known = self.heads.iter().map(|head| head.name.clone()).collect();
            return std::future::ready(Err(QueryError::NoHead { name, known }.into())).boxed();
        };
        let devices = self.devices.clone();
        loading(move || {
            let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
            if !opened.contains_key(&name) {
                opened.extend(open_heads(vec![head], &devices)?);
            }
            let open = opened.get(&name).cloned();
            open.ok_or_else(|| UsageError::new(format!("the head {name} is not open")).into())
        })
    }
}

/// Runs on a thread that may wait for files.
fn loading<T: Send + 'static>(
    opening: impl FnOnce() -> Result<T> + Send + 'static,
) -> BoxFuture<'static, Result<T, SearchError>> {
    async move {
        let failed = |error: EngineError| SearchError::Model(Box::new(error));
        let opened = tokio::task::spawn_blocking(opening).await;
        opened.map_err(|error| failed(error.into()))?.map_err(failed)
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use polylance_encoder::{ModelConfig, synthetic::Checkpoint};
    use polylance_schema::Dtype;
    use polylance_schema::{Chunking, Prompts};

    use super::*;

    /// A small model, and the contract of a table that it was made with.
    fn model(folder: &tempfile::TempDir, dtype: Dtype) -> (String, Contract) {
        let config = ModelConfig { vocab_size: 250_002, ..ModelConfig::tiny() };
        Checkpoint::new(config).write(folder.path()).unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), polylance_builtin::tokenizer_json()).unwrap();
        let model = folder.path().to_str().unwrap();
        let options = PoolOptions { dtype: Some(dtype), ..PoolOptions::default() };
        let chunking = Chunking::Truncate { max_tokens: 16 };
        let files = ModelFiles::find(model).unwrap();
        (model.to_owned(), polylance_worker::contract(&files, &options, Prompts::default(), chunking).unwrap())
    }

    #[test]
    fn a_table_is_queried_in_its_own_dtype_and_one_of_f16_in_f32_where_the_cpu_computes() {
        let (folder, on_cores) = (tempfile::tempdir().unwrap(), ["cpu".to_owned()]);
        for (of_table, of_query) in
            [(Dtype::F32, "f32"), (Dtype::Bf16, "bf16"), (Dtype::Int8, "int8"), (Dtype::F16, "f32")]
        {
            let (model, contract) = model(&folder, of_table);
            let pool = open_for_table(&model, &contract, &on_cores).unwrap();
            assert_eq!(pool.report().compute_dtype, of_query, "a table of {of_table}");
        }
    }

    #[test]
    fn a_named_device_that_is_not_there_is_refused_before_a_model_is_loaded() {
        let (folder, nowhere) = (tempfile::tempdir().unwrap(), ["cuda:4000".to_owned()]);
        let (model, contract) = model(&folder, Dtype::F32);
        let error = open_for_table("no/such-model", &contract, &nowhere).unwrap_err().to_string();
        assert!(error.starts_with("device `cuda:4000`: "), "{error}");
        let error = open_reranker(&model, &nowhere).unwrap_err().to_string();
        assert!(error.starts_with("device `cuda:4000`: "), "{error}");
    }
}
