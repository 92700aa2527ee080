//! The models: one for each contract that a table has, a reranker, and heads by name.

use std::{collections::BTreeMap, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use polylance_backend::{AnnotatorHandle, BackendHandle};
use polylance_schema::Contract;
use polylance_search::{ModelSource, Models, QueryError, SearchError};
use tokio::sync::{Mutex, OnceCell};

use crate::{batching::Batched, metrics::Metrics};

/// What a server computes with.
#[derive(Debug, Clone)]
pub struct ServedModels {
    /// Opens the model of a contract: asked once for each.
    pub embedders: Arc<dyn ModelSource>,
    /// Reads query and passage together.
    pub reranker: Option<AnnotatorHandle>,
    /// What `predict` may be asked for.
    pub heads: BTreeMap<String, AnnotatorHandle>,
}

/// The models that are loaded.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    given: ServedModels,
    metrics: Metrics,
    embedders: Arc<Mutex<Vec<(Contract, BackendHandle)>>>,
    /// Contracts whose model could not be loaded: a request does not try again.
    missing: Arc<Mutex<Vec<Contract>>>,
    /// The contracts of the tables as they were when the server started.
    known: Arc<OnceCell<Vec<Contract>>>,
}

impl Loaded {
    pub(crate) fn new(given: ServedModels, metrics: Metrics) -> Self {
        Self { given, metrics, embedders: Arc::default(), missing: Arc::default(), known: Arc::default() }
    }

    pub(crate) fn reranker(&self) -> Option<&AnnotatorHandle> {
        self.given.reranker.as_ref()
    }

    pub(crate) fn heads(&self) -> &BTreeMap<String, AnnotatorHandle> {
        &self.given.heads
    }

    /// The model of a contract; the first who asks waits until it is loaded, and all others with them.
    pub(crate) async fn embedder(&self, contract: &Contract) -> Result<BackendHandle, SearchError> {
        let mut embedders = self.embedders.lock().await;
        if let Some((_, known)) = embedders.iter().find(|(of, _)| of == contract) {
            return Ok(known.clone());
        }
        if self.known.get().is_some_and(|known| !known.iter().any(|known| is_same_model(known, contract))) {
            let message = "the table's model has changed since the server was started: restart it to load another";
            return Err(SearchError::Model(message.into()));
        }
        if self.missing.lock().await.contains(contract) {
            return Err(SearchError::Model("it could not be loaded".into()));
        }
        let opened = self.given.embedders.models(contract).await?;
        let Some(BackendHandle(backend)) = opened.embedder else {
            return Err(QueryError::NoEmbedder.into());
        };
        let metrics = self.metrics.clone();
        let batched = BackendHandle(Arc::new(Batched::new(backend, move |inputs| metrics.embedded(inputs))));
        embedders.push((contract.clone(), batched.clone()));
        Ok(batched)
    }

    /// From now on only models that are loaded are opened again: what a table names later, nobody here has agreed to.
    pub(crate) async fn seal(&self) {
        let known = self.embedders.lock().await.iter().map(|(contract, _)| contract.clone()).collect();
        let _sealed_before = self.known.set(known);
    }

    /// Everything a search of a table with this contract may need.
    pub(crate) async fn of(&self, contract: Option<&Contract>) -> Result<Models, SearchError> {
        let embedder = match contract {
            Some(contract) => Some(self.embedder(contract).await?),
            None => None,
        };
        Ok(Models { embedder, reranker: self.given.reranker.clone() })
    }

    /// Everything a search by words may need.
    pub(crate) fn of_words(&self) -> Models {
        Models { embedder: None, reranker: self.given.reranker.clone() }
    }

    /// Loads what searches of a table with this contract may need. What cannot be loaded is tried again with the next
    /// version of a table.
    pub(crate) async fn prepare(&self, contract: Option<&Contract>) -> Result<(), SearchError> {
        let Some(contract) = contract else { return Ok(()) };
        self.missing.lock().await.retain(|missing| missing != contract);
        if let Err(error) = self.embedder(contract).await {
            self.missing.lock().await.push(contract.clone());
            return Err(error);
        }
        Ok(())
    }

    /// Lets go of the models that no table has any more.
    pub(crate) async fn keep(&self, contracts: &[&Contract]) {
        self.embedders.lock().await.retain(|(contract, _)| contracts.contains(&contract));
        self.missing.lock().await.retain(|contract| contracts.contains(&contract));
    }
}

fn is_same_model(one: &Contract, other: &Contract) -> bool {
    let files =
        |contract: &Contract| (contract.model.clone(), contract.weights_hash.clone(), contract.tokenizer_hash.clone());
    files(one) == files(other)
}

impl ModelSource for Loaded {
    fn models(&self, contract: &Contract) -> BoxFuture<'static, Result<Models, SearchError>> {
        let (loaded, contract) = (self.clone(), contract.clone());
        async move { loaded.of(Some(&contract)).await }.boxed()
    }

    fn head(&self, name: &str) -> BoxFuture<'static, Result<AnnotatorHandle, SearchError>> {
        let found = self.given.heads.get(name).cloned();
        let no_head = || QueryError::NoHead { name: name.to_owned(), known: Vec::new() };
        let found = found.ok_or_else(|| SearchError::from(no_head()));
        std::future::ready(found).boxed()
    }
}
