//! SQL over Lance tables, reading only.

mod at_least;
mod embed;
mod heads;
mod hits;
pub(crate) mod limits;
mod models;
mod named_read;
mod nearest;
mod spans;
mod tables;
mod vectors;
mod waiting;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::{
    error::DataFusionError,
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

use crate::{SearchError, SearchTable, table::LIMITED_ROWS};
use tables::{Readable, Tables};

/// A session in which each table is known by a name.
///
/// Beside DataFusion's own functions there are: `embed(text [, 'query' | 'passage'])`, `cosine_similarity`,
/// `dot_product`, `l2_distance`, `truncate_embedding(vector, dims)`, `classify(text, 'head')`, `entities(text, 'head')`; as tables `vector_search`, `text_search` and
/// `hybrid_search('table', 'query' [, k [, 'condition']])` (and `'fusion' [, weight]` behind those of a hybrid search), `neighbors('table', 'doc_id' [, k [, 'condition']])` and
/// `spans('table', 'column')`. `ORDER BY cosine_similarity(embedding, …) DESC LIMIT k` searches the index.
pub struct SqlSession {
    context: SessionContext,
    tables: Arc<Tables>,
    limited: bool,
}

/// Memory and disk that the statements of several sessions share.
#[derive(Debug, Clone)]
pub struct SqlRuntime(Arc<RuntimeEnv>);

impl SqlRuntime {
    /// At most so many bytes in memory, and so many in temporary files.
    ///
    /// # Errors
    /// [`SearchError::Sql`] when there is no place for temporary files.
    pub fn new(memory: usize, disk: u64) -> Result<Self, SearchError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
            .with_max_temp_directory_size(disk);
        Ok(Self(runtime.build_arc()?))
    }
}

impl std::fmt::Debug for SqlSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlSession").field("id", &self.context.session_id()).finish_non_exhaustive()
    }
}

/// The name of a table that was given none: the last part of its address, without its ending, in lower case,
/// with an underscore for what a plain SQL name cannot hold.
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
    /// Opens the latest version of each `(name, address)`; an empty name becomes [`default_table_name`]. An address that
    /// ends in `.parquet` is a file or a folder of files on this machine.
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

    /// A session over tables that are open already.
    ///
    /// With a runtime it is limited, for statements of others: one that needs more memory or disk than the runtime has is
    /// refused, and so is one that calls a function that no limit holds.
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
        let tables = Arc::new(Tables::new(by_name, models));
        let limited = runtime.is_some();
        let runtime = match runtime {
            Some(SqlRuntime(runtime)) => Arc::clone(runtime),
            None => RuntimeEnvBuilder::new().build_arc()?,
        };
        let mut config = SessionConfig::new().with_information_schema(true);
        if limited {
            // A statement can be ended between two batches, and no function sees more rows at once.
            config = config.with_batch_size(LIMITED_ROWS);
        }
        // Readers of Arrow older than its views are many.
        config.options_mut().optimizer.expand_views_at_output = true;
        // Calls that wait for a model lose the table's metadata, which aggregates above them would miss.
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
            context.register_table(reference, Arc::new(Readable::new(Arc::clone(table))))?;
        }
        for function in vectors::functions() {
            context.register_udf(function);
        }
        context.register_udf(embed::function(&tables));
        for function in heads::functions(&tables) {
            context.register_udf(function);
        }
        for (name, function) in hits::Function::ALL {
            let tables = Arc::clone(&tables);
            context.register_udtf(name, Arc::new(hits::SearchFunction { name, function, tables }));
        }
        context.register_udtf("spans", Arc::new(spans::SpansFunction { tables: Arc::clone(&tables) }));
        Ok(Self { context, tables, limited })
    }

    /// Runs one query.
    ///
    /// # Errors
    /// [`SearchError::ReadOnly`] for a statement that is not a query, [`SearchError::Sql`] for one that does
    /// not fit the tables. Errors while running come out of the stream; [`SearchError::from`] tells what they are.
    pub async fn query(&self, sql: &str) -> Result<SendableRecordBatchStream, SearchError> {
        let plan = Box::pin(self.plan(sql)).await?;
        let plan = Box::pin(embed::embed_constants(plan, &self.tables)).await?;
        let plan = waiting::move_calls(plan)?;
        let frame = Box::pin(self.context.execute_logical_plan(plan)).await?;
        Ok(Box::pin(frame.execute_stream()).await?)
    }

    /// The columns of a query's rows, as [`SqlSession::query`] returns them. Nothing is read, searched or embedded.
    ///
    /// # Errors
    /// As [`SqlSession::query`], for what can be seen without reading.
    pub async fn schema(&self, sql: &str) -> Result<SchemaRef, SearchError> {
        let plan = Box::pin(self.plan(sql)).await?;
        let state = self.context.state();
        let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
        Ok(Arc::clone(plan.schema().inner()))
    }

    /// The types of a query's parameters (`$1`, …) by their names, where the query tells them.
    ///
    /// # Errors
    /// As [`SqlSession::schema`].
    pub async fn parameters(&self, sql: &str) -> Result<HashMap<String, Option<DataType>>, SearchError> {
        Ok(Box::pin(self.plan(sql)).await?.get_parameter_types()?)
    }

    /// The plan of a statement that reads.
    async fn plan(&self, sql: &str) -> Result<LogicalPlan, SearchError> {
        let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let state = self.context.state();
        let statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
        if self.limited {
            limits::check_syntax(&statement)?;
        }
        let plan = Box::pin(state.statement_to_plan(statement)).await?;
        reading.verify_plan(&plan)?;
        if self.limited { limits::bound(plan) } else { Ok(plan) }
    }
}

impl From<DataFusionError> for SearchError {
    /// What went wrong inside a plan: an error of a search as itself, a refused statement as
    /// [`SearchError::ReadOnly`], anything else as [`SearchError::Sql`].
    fn from(error: DataFusionError) -> Self {
        let error = match error {
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => return Self::from(*inner),
            DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(own) => return *own,
                Err(inner) => DataFusionError::External(inner),
            },
            error => error,
        };
        // An error that several tasks wait for is shared, and cannot be taken out.
        if let DataFusionError::External(shared) = error.find_root() {
            match shared.downcast_ref() {
                Some(Self::TooLarge(message)) => return Self::TooLarge(message.clone()),
                Some(Self::Storage { uri, action, source }) => {
                    return Self::Storage { uri: uri.clone(), action, source: Arc::clone(source) };
                }
                _ => {}
            }
        }
        match error.find_root() {
            // The statements that `SQLOptions` refuses are known by the beginning of its message.
            DataFusionError::Plan(message)
                if ["DDL", "DML", "Statement"]
                    .iter()
                    .any(|kind| message.starts_with(&format!("{kind} not supported"))) =>
            {
                let statement = message.rsplit(": ").next().unwrap_or(message);
                Self::ReadOnly(format!("`{statement}` is not one"))
            }
            _ => Self::Sql(Box::new(error)),
        }
    }
}
