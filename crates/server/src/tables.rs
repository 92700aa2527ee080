//! The tables by name, each in its latest version.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use polylance_schema::with_causes;
use polylance_search::{SearchTable, SqlRuntime, SqlSession, default_table_name};

use crate::{
    addresses::Addresses,
    error::{ApiError, ServerError},
    metrics::Metrics,
    models::Loaded,
};

/// What is served at a moment. A request works on one of these from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Snapshot {
    tables: BTreeMap<String, Arc<SearchTable>>,
    pub(crate) sql: SqlSession,
    pub(crate) addresses: Addresses,
}

impl Snapshot {
    fn new(
        tables: BTreeMap<String, Arc<SearchTable>>,
        models: &Loaded,
        runtime: &SqlRuntime,
    ) -> Result<Self, ServerError> {
        let named = tables.iter().map(|(name, table)| (name.clone(), Arc::clone(table)));
        let sql = SqlSession::over(named, Arc::new(models.clone()), Some(runtime))?;
        let addresses = Addresses::new(tables.iter().map(|(name, table)| (name.as_str(), table.uri())));
        Ok(Self { tables, sql, addresses })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Arc<SearchTable>)> {
        self.tables.iter().map(|(name, table)| (name.as_str(), table))
    }

    /// The table of this name, or the only one.
    pub(crate) fn get(&self, name: Option<&str>) -> Result<(String, Arc<SearchTable>), ApiError> {
        let found = match name {
            Some(name) => self.tables.get_key_value(name),
            None if self.tables.len() > 1 => {
                let error = ApiError::bad("no_table_named", "there are several tables: name one").param("table");
                return Err(error.hint(self.names()));
            }
            None => self.tables.first_key_value(),
        };
        let (name, table) = found
            .ok_or_else(|| ApiError::not_found("no_table", "there is no table of this name").hint(self.names()))?;
        Ok((name.clone(), Arc::clone(table)))
    }

    fn names(&self) -> String {
        format!("the tables are {}", self.tables.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tables {
    current: RwLock<Arc<Snapshot>>,
    /// Shared by all versions: statements on older ones may still run.
    runtime: SqlRuntime,
    /// Since when each table's store has not answered.
    unreachable: Mutex<BTreeMap<String, Instant>>,
}

impl Tables {
    /// Opens each `(name, address)` and loads its model. An empty name is made from the address.
    pub(crate) async fn open(
        tables: &[(String, String)],
        models: &Loaded,
        metrics: &Metrics,
        runtime: SqlRuntime,
    ) -> Result<Self, ServerError> {
        let mut opened = BTreeMap::new();
        for (name, uri) in tables {
            let name = if name.is_empty() { default_table_name(uri) } else { name.clone() };
            if !name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
                let message = format!("`{name}` is no name for a table: letters, digits, `_` and `-` are");
                return Err(ServerError::Tables(message));
            }
            let table = Box::pin(SearchTable::open(uri)).await?.limited();
            if table.reads_elsewhere() {
                let message =
                    format!("the table `{name}` names files outside its own folder, which it would make public");
                return Err(ServerError::Tables(message));
            }
            models.of(table.contract()).await?;
            metrics.serves(&name, table.version());
            if opened.insert(name.clone(), Arc::new(table)).is_some() {
                return Err(ServerError::Tables(format!("two tables are named `{name}`")));
            }
        }
        if opened.is_empty() {
            return Err(ServerError::Tables("there is no table to serve".to_owned()));
        }
        // From now on the tables decide no more which models are opened.
        models.seal().await;
        let current = RwLock::new(Arc::new(Snapshot::new(opened, models, &runtime)?));
        Ok(Self { current, runtime, unreachable: Mutex::default() })
    }

    pub(crate) fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves newer versions as they come, until it is dropped: those of a table that took another's place, too. A table
    /// that cannot be read stays as it was.
    pub(crate) async fn follow(&self, models: &Loaded, metrics: &Metrics, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            if let Err(error) = Box::pin(self.refresh(models, metrics)).await {
                tracing::error!(error = %with_causes(&error), "newer versions cannot be served");
            }
        }
    }

    fn unreachable(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.unreachable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no table's store has answered for so long.
    pub(crate) fn are_unreachable(&self, long: Duration) -> bool {
        let unreachable = self.unreachable();
        self.current().tables.keys().all(|name| unreachable.get(name).is_some_and(|since| since.elapsed() >= long))
    }

    /// Looks for newer versions once.
    pub(crate) async fn refresh(&self, models: &Loaded, metrics: &Metrics) -> Result<(), ServerError> {
        let before = self.current();
        let mut tables = before.tables.clone();
        let mut changed = false;
        for (name, table) in &mut tables {
            let newer = match Box::pin(table.newer()).await {
                Ok(newer) => {
                    self.unreachable().remove(name);
                    let Some(newer) = newer else { continue };
                    newer
                }
                Err(error) => {
                    self.unreachable().entry(name.clone()).or_insert_with(Instant::now);
                    tracing::warn!(table = name, error = %with_causes(&error), "a newer version cannot be looked for");
                    continue;
                }
            };
            if newer.reads_elsewhere() {
                tracing::error!(
                    table = name,
                    "a newer version names files outside the table's folder: it is not served"
                );
                continue;
            }
            // The model is there before the first who needs it. Rows of another model are never searched with the model
            // before, and the rows before them are the table's no more: without its model the table is read, not searched.
            if let Err(error) = models.prepare(newer.contract()).await {
                let error = with_causes(&error);
                tracing::error!(table = name, %error, "the model of a newer version cannot be loaded");
            }
            tracing::info!(table = name, version = newer.version(), "serving a newer version");
            metrics.serves(name, newer.version());
            *table = Arc::new(newer);
            changed = true;
        }
        if changed {
            let snapshot = Arc::new(Snapshot::new(tables, models, &self.runtime)?);
            let contracts: Vec<_> = snapshot.iter().filter_map(|(_, table)| table.contract()).collect();
            models.keep(&contracts).await;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&snapshot);
        }
        Ok(())
    }
}
