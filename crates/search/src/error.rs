//! What can go wrong while reading a table, by what a caller can do about it.

use std::{borrow::Cow, sync::Arc};

use datafusion::error::DataFusionError;
use polylance_backend::BackendError;
use polylance_schema::{ContractError, ErrorClass, Explain};

/// A search, a query or a description failed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// Nothing is there: look at the address.
    #[error("there is no lance table at {uri}")]
    NoTable {
        /// The address.
        uri: String,
    },
    /// The table was not made by polylance: it can be read with SQL, not searched.
    #[error("{uri} has no embedding contract: a query cannot be embedded as its vectors were")]
    NoContract {
        /// The table.
        uri: String,
    },
    /// The contract in the table's metadata cannot be read: use the version that wrote it.
    #[error("{uri}: {source}")]
    UnreadableContract {
        /// The table.
        uri: String,
        /// Why.
        source: ContractError,
    },
    /// The table cannot be searched by words yet: build the index.
    #[error("{uri} has no index of its words")]
    NoTextIndex {
        /// The table.
        uri: String,
    },
    /// The query cannot be answered as it is: change it.
    #[error("{0}")]
    Query(String),
    /// Hits cannot show this column, or not twice: name another.
    #[error("{0}")]
    Column(String),
    /// A constant is needed where the statement has this parameter: give it a value.
    #[error("the parameter `{0}` has no value")]
    Parameter(String),
    /// This is not a condition on the table's columns: change it.
    #[error("the condition `{filter}` does not fit the table: {reason}")]
    Filter {
        /// The condition.
        filter: String,
        /// Why, with the column and the value.
        reason: String,
    },
    /// The model that was loaded is not the table's: load the one that the contract names.
    #[error("the table's vectors have {table} dimensions ({contract}), the loaded model's {backend}")]
    Dimensions {
        /// Dimensions of the table's vectors.
        table: usize,
        /// Dimensions of the backend's vectors.
        backend: usize,
        /// The table's contract in one line.
        contract: String,
    },
    /// A model that the query needs could not be loaded.
    #[error("{0}")]
    Model(Box<dyn std::error::Error + Send + Sync>),
    /// The query could not be embedded.
    #[error("embedding the query failed: {0}")]
    Backend(#[from] BackendError),
    /// Two tables of a session have one name: rename one.
    #[error("two tables are named `{0}`")]
    DuplicateTable(String),
    /// The statement would change something: sessions only read.
    #[error("only queries are allowed here: {0}")]
    ReadOnly(String),
    /// A limited session does not compute this: use what it allows.
    #[error("{0}")]
    NotAllowed(String),
    /// A value would be too large, or comparing too slow: use smaller ones.
    #[error("{0}")]
    TooLarge(String),
    /// The SQL is wrong, or failed while running.
    #[error("{0}")]
    Sql(Box<DataFusionError>),
    /// The store or a file in it failed: look at credentials and the file named.
    #[error("{uri}: {action} failed: {source}")]
    Storage {
        /// The table.
        uri: String,
        /// What was being done.
        action: &'static str,
        /// Lance's own words.
        source: Arc<lance::Error>,
    },
}

impl SearchError {
    /// Names the table and the action a Lance error belongs to.
    pub(crate) fn storage(uri: &str, action: &'static str) -> impl FnOnce(lance::Error) -> Self {
        move |source| Self::Storage { uri: uri.to_owned(), action, source: Arc::new(source) }
    }
}

impl Explain for SearchError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::NoTable { .. } => Some("`polylance embed` and `polylance run` make tables"),
            Self::NoContract { .. } => Some("`polylance sql` reads any Lance table"),
            Self::DuplicateTable(_) => Some("name them: --table first=URI --table second=URI"),
            Self::ReadOnly(_) => Some("polylance changes tables with `run` and `embed` only"),
            Self::NoTextIndex { .. } => {
                Some("`polylance index words` builds it; --mode vector searches by meaning without it")
            }
            Self::Filter { .. } => Some("`polylance show` lists the table's columns"),
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Storage { .. } | Self::Backend(_) | Self::UnreadableContract { .. } => ErrorClass::Environment,
            _ => ErrorClass::User,
        }
    }
}
