//! The tables by name, each in its latest version.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use polylance_schema::with_causes;
use polylance_search::{SearchTable, SqlRuntime, SqlSession, default_table_name};

use crate::{
    error::{ApiError, ServerError},
    metrics::Metrics,
    models::ModelCache,
    redact::TableAddresses,
};

/// The tables at one moment. A request uses the same snapshot from beginning to end.
#[derive(Debug)]
pub(crate) struct Snapshot {
    tables: BTreeMap<String, Arc<SearchTable>>,
    pub(crate) sql: SqlSession,
    pub(crate) addresses: TableAddresses,
}

impl Snapshot {
    fn new(
        tables: BTreeMap<String, Arc<SearchTable>>,
        models: &ModelCache,
        runtime: &SqlRuntime,
    ) -> Result<Self, ServerError> {
        let named = tables.iter().map(|(name, table)| (name.clone(), Arc::clone(table)));
        let sql = SqlSession::over(named, Arc::new(models.clone()), Some(runtime))?;
        let addresses = TableAddresses::new(tables.iter().map(|(name, table)| (name.as_str(), table.uri())));
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
                let error =
                    ApiError::bad("no_table_named", "there are several tables: name one of them").param("table");
                return Err(error.hint(self.names()));
            }
            None => self.tables.first_key_value(),
        };
        let (name, table) = found
            .ok_or_else(|| ApiError::not_found("no_table", "there is no table with this name").hint(self.names()))?;
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
    /// The tables whose store does not answer, and since when.
    unreachable: Mutex<BTreeMap<String, Instant>>,
}

impl Tables {
    /// Opens each `(name, address)` and loads its model. An empty name is derived from the address.
    pub(crate) async fn open(
        tables: &[(String, String)],
        models: &ModelCache,
        metrics: &Metrics,
        runtime: SqlRuntime,
    ) -> Result<Self, ServerError> {
        let mut opened = BTreeMap::new();
        for (name, uri) in tables {
            let name = if name.is_empty() { default_table_name(uri) } else { name.clone() };
            if !name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
                let message = format!("`{name}` cannot be a table's name: it may have letters, digits, `_` and `-`");
                return Err(ServerError::Tables(message));
            }
            let table = Box::pin(SearchTable::open(uri)).await?.limited();
            if table.reads_elsewhere() {
                let message = format!(
                    "the table `{name}` refers to files outside its own folder, which serving it would make public"
                );
                return Err(ServerError::Tables(message));
            }
            models.for_contract(table.contract()).await?;
            metrics.serving_version(&name, table.version());
            if opened.insert(name.clone(), Arc::new(table)).is_some() {
                return Err(ServerError::Tables(format!("two tables are named `{name}`")));
            }
        }
        if opened.is_empty() {
            return Err(ServerError::Tables("there is no table to serve".to_owned()));
        }
        // From now on no table decides which models are opened.
        models.seal().await;
        let current = RwLock::new(Arc::new(Snapshot::new(opened, models, &runtime)?));
        Ok(Self { current, runtime, unreachable: Mutex::default() })
    }

    pub(crate) fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves newer versions as they are committed, until it is dropped; also those of a table that was recreated at its
    /// address. A table that cannot be read stays as it was.
    pub(crate) async fn follow(&self, models: &ModelCache, metrics: &Metrics, every: Duration) {
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

    /// Whether no table's store has answered for this time.
    pub(crate) fn are_unreachable(&self, silence: Duration) -> bool {
        let unreachable = self.unreachable();
        self.current().tables.keys().all(|name| unreachable.get(name).is_some_and(|since| since.elapsed() >= silence))
    }

    /// Checks for newer versions once.
    pub(crate) async fn refresh(&self, models: &ModelCache, metrics: &Metrics) -> Result<(), ServerError> {
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
                    tracing::warn!(table = name, error = %with_causes(&error), "the check for a newer version failed");
                    continue;
                }
            };
            if newer.reads_elsewhere() {
                tracing::error!(
                    table = name,
                    "a newer version refers to files outside the table's folder: it is not served"
                );
                continue;
            }
            // The model is loaded before the first request needs it. Without its model the new version is served, but not
            // searched: its vectors are never compared with those of the model before.
            if let Err(error) = models.prepare(newer.contract()).await {
                let error = with_causes(&error);
                tracing::error!(table = name, %error, "the model of a newer version cannot be loaded");
            }
            tracing::info!(table = name, version = newer.version(), "serving a newer version");
            metrics.serving_version(name, newer.version());
            *table = Arc::new(newer);
            changed = true;
        }
        if changed {
            let snapshot = Arc::new(Snapshot::new(tables, models, &self.runtime)?);
            let contracts: Vec<_> = snapshot.iter().filter_map(|(_, table)| table.contract()).collect();
            models.retain(&contracts).await;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&snapshot);
        }
        Ok(())
    }
}
