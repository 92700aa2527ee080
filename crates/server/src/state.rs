//! What every request can reach.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use polylance_search::{SearchTable, SqlRuntime};
use tokio::sync::Semaphore;

use crate::{
    Limits, ServedModels, TokenHash,
    error::{ApiError, ServerError},
    extract::LARGE_BODIES,
    metrics::Metrics,
    models::Loaded,
    tables::{Snapshot, Tables},
    work::{Kind, Work},
};

/// How long no store answers before the server is not ready.
const UNREACHABLE: Duration = Duration::from_mins(1);

/// The state, shared.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<State>);

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) tables: Tables,
    pub(crate) models: Loaded,
    pub(crate) metrics: Metrics,
    pub(crate) tokens: Vec<TokenHash>,
    pub(crate) limits: Limits,
    /// A place for each large body that is being read.
    pub(crate) large_bodies: Semaphore,
    /// When the server started, in seconds since 1970.
    pub(crate) started: u64,
    work: Work,
    ending: AtomicBool,
}

impl Deref for App {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl App {
    pub(crate) async fn open(
        tables: &[(String, String)],
        models: ServedModels,
        tokens: Vec<TokenHash>,
        limits: Limits,
    ) -> Result<Self, ServerError> {
        let metrics = Metrics::new();
        let models = Loaded::new(models, metrics.clone());
        let runtime = SqlRuntime::new(limits.sql_memory, limits.sql_disk)?;
        let tables = Tables::open(tables, &models, &metrics, runtime).await?;
        let work = Work::new(&limits).map_err(ServerError::Threads)?;
        let ending = AtomicBool::new(false);
        let large_bodies = Semaphore::new(LARGE_BODIES);
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let state = State { tables, models, metrics, tokens, limits, large_bodies, started, work, ending };
        Ok(Self(Arc::new(state)))
    }

    /// Works on a request when it is its turn.
    pub(crate) async fn work<T: Send + 'static, F: Future<Output = Result<T, ApiError>> + Send + 'static>(
        &self,
        kind: Kind,
        work: impl FnOnce(Self, Arc<Snapshot>) -> F,
    ) -> Result<T, ApiError> {
        let work = work(self.clone(), self.tables.current());
        Box::pin(self.0.work.run(kind, work)).await
    }

    /// Works on a request for one table.
    pub(crate) async fn work_on<T: Send + 'static, F: Future<Output = Result<T, ApiError>> + Send + 'static>(
        &self,
        kind: Kind,
        table: Option<&str>,
        work: impl FnOnce(Self, Arc<Snapshot>, String, Arc<SearchTable>) -> F,
    ) -> Result<T, ApiError> {
        let snapshot = self.tables.current();
        let (name, table) = snapshot.get(table)?;
        let work = work(self.clone(), snapshot, name, table);
        Box::pin(self.0.work.run(kind, work)).await
    }

    pub(crate) fn in_work(&self) -> usize {
        self.0.work.in_work()
    }

    /// Why no more requests should be sent here, while that is so.
    pub(crate) fn is_held(&self) -> Option<&'static str> {
        if self.tables.are_unreachable(UNREACHABLE) {
            return Some("the stores of all tables do not answer");
        }
        self.0.work.is_held()
    }

    /// From now on the server is not ready.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }
}
