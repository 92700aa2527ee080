//! The models that are loaded: one per contract of a table, a reranker, and heads by name.

use std::{collections::BTreeMap, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use polylance_backend::{AnnotatorHandle, BackendHandle};
use polylance_schema::Contract;
use polylance_search::{ModelSource, Models, QueryError, SearchError};
use tokio::sync::{Mutex, OnceCell};

use super::batching::BatchingBackend;
use crate::metrics::Metrics;

/// The models of a server.
#[derive(Debug, Clone)]
pub struct ServedModels {
    /// Opens the model of a contract; called once for each contract.
    pub embedders: Arc<dyn ModelSource>,
    /// The model for `/v1/rerank` and for reranked searches.
    pub reranker: Option<AnnotatorHandle>,
    /// The heads of `/v1/predict`, by name.
    pub heads: BTreeMap<String, AnnotatorHandle>,
}

/// The models that are loaded, shared.
#[derive(Debug, Clone)]
pub(crate) struct ModelCache {
    given: ServedModels,
    metrics: Metrics,
    embedders: Arc<Mutex<Vec<(Contract, BackendHandle)>>>,
    /// Contracts whose model could not be loaded: requests do not try again.
    failed: Arc<Mutex<Vec<Contract>>>,
    /// The contracts of the tables at the start of the server: only their models may be loaded.
    allowed: Arc<OnceCell<Vec<Contract>>>,
}

impl ModelCache {
    pub(crate) fn new(given: ServedModels, metrics: Metrics) -> Self {
        Self { given, metrics, embedders: Arc::default(), failed: Arc::default(), allowed: Arc::default() }
    }

    pub(crate) fn reranker(&self) -> Option<&AnnotatorHandle> {
        self.given.reranker.as_ref()
    }

    pub(crate) fn heads(&self) -> &BTreeMap<String, AnnotatorHandle> {
        &self.given.heads
    }

    /// The model of a contract. The first request for it loads it, and the others wait.
    pub(crate) async fn embedder(&self, contract: &Contract) -> Result<BackendHandle, SearchError> {
        let mut embedders = self.embedders.lock().await;
        if let Some((_, loaded)) = embedders.iter().find(|(of, _)| of == contract) {
            return Ok(loaded.clone());
        }
        if self.allowed.get().is_some_and(|allowed| !allowed.iter().any(|allowed| is_same_model(allowed, contract))) {
            let message = "the table's model has changed since the start of the server: restart the server to load it";
            return Err(SearchError::Model(message.into()));
        }
        if self.failed.lock().await.contains(contract) {
            return Err(SearchError::Model("it could not be loaded".into()));
        }
        let opened = self.given.embedders.models(contract).await?;
        let Some(BackendHandle(backend)) = opened.embedder else {
            return Err(QueryError::NoEmbedder.into());
        };
        let metrics = self.metrics.clone();
        let batched = BackendHandle(Arc::new(BatchingBackend::new(backend, move |inputs| metrics.embed_call(inputs))));
        embedders.push((contract.clone(), batched.clone()));
        Ok(batched)
    }

    /// From now on only the models that are loaded may be opened again: nobody has agreed to those that a table names
    /// later.
    pub(crate) async fn seal(&self) {
        let allowed = self.embedders.lock().await.iter().map(|(contract, _)| contract.clone()).collect();
        let _sealed_before = self.allowed.set(allowed);
    }

    /// All models that a search of a table with this contract may need.
    pub(crate) async fn for_contract(&self, contract: Option<&Contract>) -> Result<Models, SearchError> {
        let embedder = match contract {
            Some(contract) => Some(self.embedder(contract).await?),
            None => None,
        };
        Ok(Models { embedder, reranker: self.given.reranker.clone() })
    }

    /// All models that a full-text search may need.
    pub(crate) fn without_embedder(&self) -> Models {
        Models { embedder: None, reranker: self.given.reranker.clone() }
    }

    /// Loads the model of this contract. A model that cannot be loaded is tried again with the next version of a table.
    pub(crate) async fn prepare(&self, contract: Option<&Contract>) -> Result<(), SearchError> {
        let Some(contract) = contract else { return Ok(()) };
        self.failed.lock().await.retain(|failed| failed != contract);
        if let Err(error) = self.embedder(contract).await {
            self.failed.lock().await.push(contract.clone());
            return Err(error);
        }
        Ok(())
    }

    /// Drops the models of all other contracts.
    pub(crate) async fn retain(&self, contracts: &[&Contract]) {
        self.embedders.lock().await.retain(|(contract, _)| contracts.contains(&contract));
        self.failed.lock().await.retain(|contract| contracts.contains(&contract));
    }
}

fn is_same_model(one: &Contract, other: &Contract) -> bool {
    let files =
        |contract: &Contract| (contract.model.clone(), contract.weights_hash.clone(), contract.tokenizer_hash.clone());
    files(one) == files(other)
}

impl ModelSource for ModelCache {
    fn models(&self, contract: &Contract) -> BoxFuture<'static, Result<Models, SearchError>> {
        let (cache, contract) = (self.clone(), contract.clone());
        async move { cache.for_contract(Some(&contract)).await }.boxed()
    }

    fn head(&self, name: &str) -> BoxFuture<'static, Result<AnnotatorHandle, SearchError>> {
        let found = self.given.heads.get(name).cloned();
        let no_head = || QueryError::NoHead { name: name.to_owned(), known: Vec::new() };
        let found = found.ok_or_else(|| SearchError::from(no_head()));
        std::future::ready(found).boxed()
    }
}
