//! The state that every request can reach.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use polylance_search::{SearchTable, SqlRuntime};

use crate::{
    error::{ApiError, ServerError},
    executor::{Executor, RequestClass},
    limits::{Limits, body::BodyReader},
    metrics::Metrics,
    models::{ModelCache, ServedModels},
    tables::{Snapshot, Tables},
    token::TokenHash,
};

/// The server is not ready when no table's store has answered for this time.
const MAX_STORE_SILENCE: Duration = Duration::from_mins(1);

/// The state, shared.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<State>);

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) tables: Tables,
    pub(crate) models: ModelCache,
    pub(crate) metrics: Metrics,
    pub(crate) tokens: Vec<TokenHash>,
    pub(crate) limits: Limits,
    pub(crate) bodies: BodyReader,
    /// When the server started, in seconds since 1970.
    pub(crate) started: u64,
    executor: Executor,
    shutting_down: AtomicBool,
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
        let models = ModelCache::new(models, metrics.clone());
        let runtime = SqlRuntime::new(limits.sql_memory_bytes, limits.sql_disk_bytes)?;
        let tables = Tables::open(tables, &models, &metrics, runtime).await?;
        let executor = Executor::new(&limits).map_err(ServerError::Threads)?;
        let shutting_down = AtomicBool::new(false);
        let bodies = BodyReader::new(&limits);
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let state = State { tables, models, metrics, tokens, limits, bodies, started, executor, shutting_down };
        Ok(Self(Arc::new(state)))
    }

    /// Runs a request when its turn has come, on the tables as they are now.
    pub(crate) async fn execute<T: Send + 'static, F: Future<Output = Result<T, ApiError>> + Send + 'static>(
        &self,
        class: RequestClass,
        work: impl FnOnce(Self, Arc<Snapshot>) -> F,
    ) -> Result<T, ApiError> {
        let work = work(self.clone(), self.tables.current());
        Box::pin(self.0.executor.execute(class, work)).await
    }

    /// Runs a request for one table.
    pub(crate) async fn execute_on_table<
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    >(
        &self,
        class: RequestClass,
        table: Option<&str>,
        work: impl FnOnce(Self, Arc<Snapshot>, String, Arc<SearchTable>) -> F,
    ) -> Result<T, ApiError> {
        let snapshot = self.tables.current();
        let (name, table) = snapshot.get(table)?;
        let work = work(self.clone(), snapshot, name, table);
        Box::pin(self.0.executor.execute(class, work)).await
    }

    pub(crate) fn running_requests(&self) -> usize {
        self.0.executor.running()
    }

    /// Why clients should send no more requests for now.
    pub(crate) fn not_ready_reason(&self) -> Option<&'static str> {
        if self.tables.are_unreachable(MAX_STORE_SILENCE) {
            return Some("the stores of all tables do not answer");
        }
        self.0.executor.stuck_reason()
    }

    /// From now on the server is not ready.
    pub(crate) fn begin_shutdown(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Relaxed)
    }
}
