//! Read-only SQL over Lance tables.

mod async_udf_rewrite;
mod at_least;
mod embed;
mod heads;
mod model_calls;
mod models;
mod named_read;
mod nearest;
mod search_functions;
mod spans;
mod tables;
mod vectors;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::{
    execution::{
        SendableRecordBatchStream, SessionStateBuilder,
        context::{SQLOptions, SessionConfig, SessionContext},
        memory_pool::FairSpillPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::LogicalPlan,
    prelude::ParquetReadOptions,
};

pub use models::{LoadedModels, ModelSource};

use crate::{SearchError, SearchTable, limits, table::LIMITED_BATCH_ROWS};
use search_functions::{SearchFunction, SearchKind};
use tables::{LanceReadTable, TableRegistry};

/// A SQL session over named tables.
///
/// Besides DataFusion's own functions there are:
///
/// - `embed(text [, 'query' | 'passage'])`, `classify(text, 'head')` and `entities(text, 'head')`, which call models;
/// - `cosine_similarity`, `dot_product`, `l2_distance` and `truncate_embedding(vector, dims)`;
/// - the table functions `vector_search` and `text_search('table', 'query' [, k [, 'condition']])`,
///   `hybrid_search('table', 'query' [, k [, 'condition' [, 'fusion' [, weight]]]])`,
///   `neighbors('table', 'doc_id' [, k [, 'condition']])` and `spans('table', 'column')`.
///
/// `ORDER BY cosine_similarity(embedding, …) DESC LIMIT k` searches the index.
pub struct SqlSession {
    context: SessionContext,
    tables: Arc<TableRegistry>,
    limited: bool,
}

/// Memory and disk that the statements of several sessions share.
#[derive(Debug, Clone)]
pub struct SqlRuntime(Arc<RuntimeEnv>);

impl SqlRuntime {
    /// At most `memory_bytes` in memory and `disk_bytes` in temporary files.
    ///
    /// # Errors
    /// [`SearchError::Sql`] when no folder for temporary files can be used.
    pub fn new(memory_bytes: usize, disk_bytes: u64) -> Result<Self, SearchError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes)))
            .with_max_temp_directory_size(disk_bytes);
        Ok(Self(runtime.build_arc()?))
    }
}

impl std::fmt::Debug for SqlSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlSession").field("id", &self.context.session_id()).finish_non_exhaustive()
    }
}

/// The default name of a table: the last part of its address, without its extension, in lower case, with underscores for
/// characters that a plain SQL name cannot contain.
///
/// ```
/// use polylance_search::default_table_name;
/// assert_eq!(default_table_name("s3://corpus/UDHR-60.lance"), "udhr_60");
/// assert_eq!(default_table_name("out/1st.quarantine.lance/"), "t_1st_quarantine");
/// ```
pub fn default_table_name(uri: &str) -> String {
    let last = uri.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = last.strip_suffix(".lance").or_else(|| last.strip_suffix(".parquet")).unwrap_or(last);
    let name: String =
        stem.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect::<String>().to_lowercase();
    if name.starts_with(|c: char| c.is_alphabetic() || c == '_') { name } else { format!("t_{name}") }
}

impl SqlSession {
    /// Opens the latest version of each `(name, address)`; an empty name stands for [`default_table_name`]. An address that
    /// ends in `.parquet` is a local file or a local folder of files.
    ///
    /// # Errors
    /// [`SearchError::NoTable`], [`SearchError::DuplicateTable`], [`SearchError::Storage`].
    pub async fn open(tables: &[(String, String)], models: Option<Arc<dyn ModelSource>>) -> Result<Self, SearchError> {
        let (mut opened, mut files) = (Vec::with_capacity(tables.len()), Vec::new());
        for (name, uri) in tables {
            let name = if name.is_empty() { default_table_name(uri) } else { name.clone() };
            if uri.trim_end_matches('/').ends_with(".parquet") {
                files.push((name, uri));
            } else {
                opened.push((name, Arc::new(SearchTable::open(uri).await?)));
            }
        }
        let session = Self::over(opened, models.unwrap_or_else(models::no_models), None)?;
        for (name, uri) in files {
            let reference = datafusion::sql::TableReference::bare(name.as_str());
            if session.context.table_exist(reference.clone())? {
                return Err(SearchError::DuplicateTable(name));
            }
            Box::pin(session.context.register_parquet(reference, uri, ParquetReadOptions::default())).await?;
        }
        Ok(session)
    }

    /// A session over tables that are already open.
    ///
    /// With a runtime the session is limited, for untrusted statements: it refuses a statement that needs more memory or
    /// disk than the runtime has, and one that calls a function whose output or time is not bounded.
    ///
    /// # Errors
    /// [`SearchError::DuplicateTable`].
    pub fn over(
        tables: impl IntoIterator<Item = (String, Arc<SearchTable>)>,
        models: Arc<dyn ModelSource>,
        runtime: Option<&SqlRuntime>,
    ) -> Result<Self, SearchError> {
        let mut by_name = BTreeMap::new();
        for (name, table) in tables {
            if by_name.insert(name.clone(), table).is_some() {
                return Err(SearchError::DuplicateTable(name));
            }
        }
        let tables = Arc::new(TableRegistry::new(by_name, models));
        let limited = runtime.is_some();
        let runtime = match runtime {
            Some(SqlRuntime(runtime)) => Arc::clone(runtime),
            None => RuntimeEnvBuilder::new().build_arc()?,
        };
        let mut config = SessionConfig::new().with_information_schema(true);
        if limited {
            // A statement can be stopped between two batches, and no function receives more rows at once.
            config = config.with_batch_size(LIMITED_BATCH_ROWS);
        }
        // Many Arrow readers do not support views yet.
        config.options_mut().optimizer.expand_views_at_output = true;
        // Calls of models lose the table's metadata, which the check would miss in aggregates above them.
        config.options_mut().execution.skip_physical_aggregate_schema_check = true;
        let mut state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .with_optimizer_rule(Arc::new(nearest::ReadNearest));
        if limited {
            state = state.with_physical_optimizer_rule(Arc::new(limits::CheckJoins));
        }
        let context = SessionContext::new_with_state(state.build());
        for (name, table) in tables.iter() {
            let reference = datafusion::sql::TableReference::bare(name.as_str());
            context.register_table(reference, Arc::new(LanceReadTable::new(Arc::clone(table))))?;
        }
        for function in vectors::functions() {
            context.register_udf(function);
        }
        context.register_udf(embed::function(&tables));
        for function in heads::functions(&tables) {
            context.register_udf(function);
        }
        for (name, kind) in SearchKind::ALL {
            let tables = Arc::clone(&tables);
            context.register_udtf(name, Arc::new(SearchFunction { name, kind, tables }));
        }
        context.register_udtf("spans", Arc::new(spans::SpansFunction { tables: Arc::clone(&tables) }));
        Ok(Self { context, tables, limited })
    }

    /// Runs one query.
    ///
    /// # Errors
    /// [`SearchError::ReadOnly`] for a statement that is not a query, [`SearchError::Sql`] for one that does not fit the
    /// tables. The stream yields errors of the execution; [`SearchError::from`] converts them.
    pub async fn query(&self, sql: &str) -> Result<SendableRecordBatchStream, SearchError> {
        let plan = Box::pin(self.plan(sql)).await?;
        let plan = Box::pin(embed::embed_constants(plan, &self.tables)).await?;
        let plan = async_udf_rewrite::hoist_async_calls(plan)?;
        let frame = Box::pin(self.context.execute_logical_plan(plan)).await?;
        Ok(Box::pin(frame.execute_stream()).await?)
    }

    /// The columns of a query's rows, as [`SqlSession::query`] returns them. Nothing is read, searched or embedded.
    ///
    /// # Errors
    /// As [`SqlSession::query`], for errors that planning finds.
    pub async fn schema(&self, sql: &str) -> Result<SchemaRef, SearchError> {
        let plan = Box::pin(self.plan(sql)).await?;
        let state = self.context.state();
        let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
        Ok(Arc::clone(plan.schema().inner()))
    }

    /// The types of a query's parameters (`$1`, …) by name; `None` where the query does not determine the type.
    ///
    /// # Errors
    /// As [`SqlSession::schema`].
    pub async fn parameters(&self, sql: &str) -> Result<HashMap<String, Option<DataType>>, SearchError> {
        Ok(Box::pin(self.plan(sql)).await?.get_parameter_types()?)
    }

    /// The plan of a statement that only reads.
    async fn plan(&self, sql: &str) -> Result<LogicalPlan, SearchError> {
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let state = self.context.state();
        let statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
        if self.limited {
            limits::check_syntax(&statement)?;
        }
        let plan = Box::pin(state.statement_to_plan(statement)).await?;
        read_only.verify_plan(&plan)?;
        if self.limited { limits::bound(plan) } else { Ok(plan) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_is_limited_exactly_with_a_runtime() {
        let session = |runtime: Option<&SqlRuntime>| SqlSession::over([], models::no_models(), runtime).unwrap();
        assert!(!session(None).limited);
        assert!(session(Some(&SqlRuntime::new(64 << 20, 1 << 20).unwrap())).limited);
    }
}
