//! The models of tables' contracts, and named heads, each opened when it is first needed.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};
use polylance_backend::{AnnotatorHandle, BackendHandle};
use polylance_encoder::ModelFiles;
use polylance_schema::{Contract, TaskSpec};
use polylance_search::{ModelSource, Models, QueryError, SearchError};
use polylance_worker::{DevicePool, PoolOptions, Selection, TaskPool};
use tokio::{sync::Mutex, task::spawn_blocking};

use super::{
    CopyCheck, locate,
    trusted::{self, TableModelPolicy},
};
use crate::{
    EngineError, UsageError,
    devices::{select as select_devices, select_for_queries},
};

type Result<T, E = EngineError> = std::result::Result<T, E>;

/// A head that SQL statements and requests call by name. Its model is not loaded yet.
#[derive(Debug, Clone)]
pub struct NamedHead {
    /// The name.
    pub name: String,
    /// The task of the head.
    pub spec: TaskSpec,
    /// A folder, an address in object storage or a hub name.
    pub model: String,
}

/// Opens the table's model with the table's settings, after comparing its weights and tokenizer with the contract.
///
/// # Errors
/// [`UsageError`] if `model` has other weights or another tokenizer than the contract.
pub async fn open_for_table(model: &str, contract: &Contract, devices: &[String]) -> Result<DevicePool> {
    let selection = select_for_queries(devices, contract)?;
    let files = locate(model, CopyCheck::Weights).await?;
    let contract = contract.clone();
    spawn_blocking(move || open_as_in_table(files, &contract, &selection)).await?
}

/// Opens the files of a table's model.
fn open_as_in_table(files: ModelFiles, contract: &Contract, selection: &Selection) -> Result<DevicePool> {
    let files = files.as_in_table(&contract.tokenizer_hash)?;
    let same = files.weights_hash()? == contract.weights_hash && files.tokenizer_hash()? == contract.tokenizer_hash;
    if !same {
        let error = UsageError::new(format!(
            "{} is not the model that the table was made with: its files have changed",
            files.name()
        ));
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

/// Opens a cross-encoder.
///
/// # Errors
/// Those of the model's files and its head.
pub async fn open_reranker(model: &str, devices: &[String]) -> Result<TaskPool> {
    open_head(model, TaskSpec::Rerank, devices).await
}

/// Opens a model with a head.
async fn open_head(model: &str, spec: TaskSpec, devices: &[String]) -> Result<TaskPool> {
    let files = trusted::find(model).await?;
    let options = select_devices(devices, None)?.options();
    Ok(spawn_blocking(move || TaskPool::open(&files, spec, &options)).await??)
}

/// Opens heads, by name.
///
/// # Errors
/// [`UsageError`] if two heads have the same name, and those of the models' files.
pub async fn open_heads(heads: Vec<NamedHead>, devices: &[String]) -> Result<BTreeMap<String, AnnotatorHandle>> {
    let mut opened = BTreeMap::new();
    for NamedHead { name, spec, model } in heads {
        let pool = open_head(&model, spec, devices).await?;
        if opened.insert(name.clone(), AnnotatorHandle(Arc::new(pool))).is_some() {
            return Err(UsageError::new(format!("two heads are named `{name}`")).into());
        }
    }
    Ok(opened)
}

/// Models by contract. Each is opened once, when it is first needed.
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
    /// A registry that opens models on these devices, each with the cross-encoder, if one is named.
    pub fn new(policy: TableModelPolicy, reranker: Option<String>, devices: Vec<String>) -> Self {
        Self { policy, reranker, devices, ..Self::default() }
    }

    /// Adds heads, which are opened when a statement calls them.
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
        let open = async move {
            // The lock is held while the model loads, so that a second statement waits and does not load it again.
            let mut opened = opened.lock().await;
            if let Some(models) = opened.get(&contract.summary()) {
                return Ok(models.clone());
            }
            let model = policy.model_of(&contract)?;
            let embedder = BackendHandle(Arc::new(open_for_table(&model, &contract, &devices).await?));
            // The policy allows it, and its files are those of the contract.
            trusted::trust(&model);
            let reranker = match reranker {
                Some(model) => Some(AnnotatorHandle(Arc::new(open_reranker(&model, &devices).await?))),
                None => None,
            };
            let models = Models { embedder: Some(embedder), reranker };
            opened.insert(contract.summary(), models.clone());
            Ok(models)
        };
        in_background(open)
    }

    fn head(&self, name: &str) -> BoxFuture<'static, Result<AnnotatorHandle, SearchError>> {
        let (opened, name) = (Arc::clone(&self.opened_heads), name.to_owned());
        let Some(head) = self.heads.iter().find(|head| head.name == name).cloned() else {
            let known = self.heads.iter().map(|head| head.name.clone()).collect();
            return std::future::ready(Err(QueryError::NoHead { name, known }.into())).boxed();
        };
        let devices = self.devices.clone();
        in_background(async move {
            let mut opened = opened.lock().await;
            if !opened.contains_key(&name) {
                opened.extend(open_heads(vec![head], &devices).await?);
            }
            let open = opened.get(&name).cloned();
            open.ok_or_else(|| UsageError::new(format!("the head {name} is not open")).into())
        })
    }
}

/// Runs `open` to its end, even if the statement that waits for it is cancelled: the next one needs the model too.
#[expect(clippy::disallowed_methods, reason = "the model stays open for the next statement")]
fn in_background<T: Send + 'static>(
    open: impl Future<Output = Result<T>> + Send + 'static,
) -> BoxFuture<'static, Result<T, SearchError>> {
    async move {
        let failed = |error: EngineError| SearchError::Model(Box::new(error));
        let opened = tokio::spawn(open).await;
        opened.map_err(|error| failed(error.into()))?.map_err(failed)
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use polylance_encoder::{ModelConfig, synthetic::Checkpoint};
    use polylance_schema::{Chunking, Dtype, Prompts};

    use super::*;

    /// A small model, and the contract of a table of its vectors.
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

    #[tokio::test]
    async fn queries_have_the_tables_dtype_and_on_cpus_f32_for_f16() {
        let (folder, on_cores) = (tempfile::tempdir().unwrap(), ["cpu".to_owned()]);
        for (table_dtype, query_dtype) in
            [(Dtype::F32, "f32"), (Dtype::Bf16, "bf16"), (Dtype::Int8, "int8"), (Dtype::F16, "f32")]
        {
            let (model, contract) = model(&folder, table_dtype);
            let pool = open_for_table(&model, &contract, &on_cores).await.unwrap();
            assert_eq!(pool.report().compute_dtype, query_dtype, "a table of {table_dtype}");
        }
    }

    #[tokio::test]
    async fn missing_device_is_refused_before_a_model_is_loaded() {
        let (folder, nowhere) = (tempfile::tempdir().unwrap(), ["cuda:4000".to_owned()]);
        let (model, contract) = model(&folder, Dtype::F32);
        let error = open_for_table("no/such-model", &contract, &nowhere).await.unwrap_err().to_string();
        assert!(error.starts_with("device `cuda:4000`: "), "{error}");
        let error = open_reranker(&model, &nowhere).await.unwrap_err().to_string();
        assert!(error.starts_with("device `cuda:4000`: "), "{error}");
    }
}
