//! SQL over Lance tables, reading only.

use std::{collections::HashSet, sync::Arc};

use datafusion::{
    error::DataFusionError,
    execution::{
        SendableRecordBatchStream,
        context::{SQLOptions, SessionConfig, SessionContext},
    },
};
use lance::datafusion::LanceTableProvider;

use crate::{SearchError, open};

/// A session in which each table is known by a name.
pub struct SqlSession {
    context: SessionContext,
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
    let stem = last.strip_suffix(".lance").unwrap_or(last);
    let name: String =
        stem.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect::<String>().to_lowercase();
    if name.starts_with(|c: char| c.is_alphabetic() || c == '_') { name } else { format!("t_{name}") }
}

impl SqlSession {
    /// Opens the latest version of each `(name, address)`; an empty name becomes [`default_table_name`].
    ///
    /// # Errors
    /// [`SearchError::NoTable`], [`SearchError::DuplicateTable`], [`SearchError::Storage`].
    pub async fn open(tables: &[(String, String)]) -> Result<Self, SearchError> {
        let context = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
        let mut names = HashSet::new();
        for (name, uri) in tables {
            let name = if name.is_empty() { default_table_name(uri) } else { name.clone() };
            if !names.insert(name.clone()) {
                return Err(SearchError::DuplicateTable(name));
            }
            let dataset = Arc::new(open::open(uri).await?);
            let provider = Arc::new(LanceTableProvider::new(dataset, false, false));
            let reference = datafusion::sql::TableReference::bare(name);
            context.register_table(reference, provider).map_err(sql_error)?;
        }
        Ok(Self { context })
    }

    /// Runs one query.
    ///
    /// # Errors
    /// [`SearchError::ReadOnly`] for a statement that is not a query, [`SearchError::Sql`] for one that does
    /// not fit the tables. Errors while running come out of the stream.
    pub async fn query(&self, sql: &str) -> Result<SendableRecordBatchStream, SearchError> {
        let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = Box::pin(self.context.sql_with_options(sql, reading)).await.map_err(sql_error)?;
        Box::pin(frame.execute_stream()).await.map_err(sql_error)
    }
}

/// The statements that [`SQLOptions`] refuses are known by the beginning of its message.
fn sql_error(error: DataFusionError) -> SearchError {
    match error.find_root() {
        DataFusionError::Plan(message)
            if ["DDL", "DML", "Statement"].iter().any(|kind| message.starts_with(&format!("{kind} not supported"))) =>
        {
            let statement = message.rsplit(": ").next().unwrap_or(message);
            SearchError::ReadOnly(format!("`{statement}` is not one"))
        }
        _ => SearchError::Sql(Box::new(error)),
    }
}
