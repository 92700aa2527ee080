//! The models of a session's functions.

use std::{fmt, sync::Arc};

use futures::future::{BoxFuture, FutureExt, ready};
use polylance_backend::AnnotatorHandle;
use polylance_schema::Contract;

use crate::{Models, QueryError, SearchError};

/// Opens models for a session, when a statement needs them and not before.
pub trait ModelSource: fmt::Debug + Send + Sync {
    /// The models for searching a table with this contract.
    fn models(&self, contract: &Contract) -> BoxFuture<'static, Result<Models, SearchError>>;

    /// The head of this name, for `classify` and `entities`.
    fn head(&self, name: &str) -> BoxFuture<'static, Result<AnnotatorHandle, SearchError>> {
        let error = QueryError::NoHead { name: name.to_owned(), known: Vec::new() };
        ready(Err(error.into())).boxed()
    }
}

/// Models that are already loaded: the same ones for every table.
#[derive(Debug, Clone, Default)]
pub struct LoadedModels(pub Models);

impl ModelSource for LoadedModels {
    fn models(&self, _: &Contract) -> BoxFuture<'static, Result<Models, SearchError>> {
        ready(Ok(self.0.clone())).boxed()
    }
}

/// No models: statements that need one are refused.
pub(crate) fn no_models() -> Arc<dyn ModelSource> {
    Arc::new(LoadedModels::default())
}
