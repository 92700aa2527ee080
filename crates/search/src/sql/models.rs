//! The models that a session's functions use.

use std::{fmt, sync::Arc};

use futures::future::{BoxFuture, FutureExt, ready};
use polylance_backend::AnnotatorHandle;
use polylance_schema::Contract;

use crate::{Models, SearchError};

/// Where a session finds models: they are asked for when a statement needs them, and not before.
pub trait ModelSource: fmt::Debug + Send + Sync {
    /// The models that search a table with this contract.
    fn models(&self, contract: &Contract) -> BoxFuture<'static, Result<Models, SearchError>>;

    /// The head of this name, for `classify` and `entities`.
    fn head(&self, name: &str) -> BoxFuture<'static, Result<AnnotatorHandle, SearchError>> {
        let refused = format!("there is no head named `{name}`");
        ready(Err(SearchError::Query(refused))).boxed()
    }
}

/// Models that are loaded already, for every table alike.
#[derive(Debug, Clone, Default)]
pub struct LoadedModels(pub Models);

impl ModelSource for LoadedModels {
    fn models(&self, _: &Contract) -> BoxFuture<'static, Result<Models, SearchError>> {
        ready(Ok(self.0.clone())).boxed()
    }
}

/// No model: statements that need one are refused.
pub(crate) fn no_models() -> Arc<dyn ModelSource> {
    Arc::new(LoadedModels::default())
}
