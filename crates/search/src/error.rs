//! Errors of searches, statements and descriptions, by what a caller can do about them.

use std::{borrow::Cow, sync::Arc};

use datafusion::error::DataFusionError;
use polylance_backend::BackendError;
use polylance_hub::HubError;
use polylance_schema::{ContractError, ErrorClass, Explain};

/// A search, a statement or a description failed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// There is no table: check the address.
    #[error("no table at {uri}")]
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
    #[error("{uri}: unreadable embedding contract")]
    UnreadableContract {
        /// The table.
        uri: String,
        /// Why.
        source: ContractError,
    },
    /// The table has no full-text index: build it.
    #[error("{uri} has no full-text index")]
    NoTextIndex {
        /// The table.
        uri: String,
    },
    /// The request cannot be answered as it is: change it.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The request needs another column: name another, or search another way.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// The statement has this parameter where a constant is needed: give it a value.
    #[error("the parameter `{0}` has no value")]
    Parameter(String),
    /// The text is not a condition on the table's columns: change it.
    #[error("the condition `{filter}` does not fit the table: {reason}")]
    Filter {
        /// The condition.
        filter: String,
        /// Why, with the column and the value.
        reason: String,
    },
    /// The loaded model is not the table's: load the one that the contract names.
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
    #[error(transparent)]
    Model(Box<dyn std::error::Error + Send + Sync>),
    /// A model failed on the query or on a row.
    #[error("the model failed")]
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
    /// A value would be too large, or a comparison too slow: use smaller values.
    #[error("{0}")]
    TooLarge(String),
    /// The SQL is wrong, or failed while it ran.
    #[error(transparent)]
    Sql(Box<DataFusionError>),
    /// The dataset on the hub cannot be read: check its name and the token.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The store or a file in it failed: check the credentials and the named file.
    #[error("{uri}: {action} failed")]
    Storage {
        /// The table.
        uri: String,
        /// The failed action.
        action: &'static str,
        /// Lance's error.
        source: Arc<lance::Error>,
    },
}

/// A request that cannot be answered as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The text is white space.
    #[error("the query is empty")]
    Empty,
    /// The tokenizer makes no token of the text.
    #[error("the query has no tokens")]
    NoTokens,
    /// The query's vector has another length than the table's.
    #[error("the query has {query} dimensions, the table's vectors {table}")]
    Dimensions {
        /// Dimensions of the query.
        query: usize,
        /// Dimensions of the table's vectors.
        table: usize,
    },
    /// The query's vector has a NaN or an infinity.
    #[error("the query's vector has a value that is not a finite number")]
    NotFinite,
    /// Full-text and hybrid search need a text.
    #[error("full-text search needs a text as its query: use the mode `vector`")]
    NotText,
    /// Reranking needs a text.
    #[error("only a text query can be reranked")]
    RerankedWithoutText,
    /// A number of the request is out of its range.
    #[error("{parameter} must be {range}")]
    OutOfRange {
        /// The number's name.
        parameter: &'static str,
        /// The range, in words.
        range: &'static str,
    },
    /// Reciprocal rank fusion takes no weight.
    #[error("reciprocal rank fusion has no weight")]
    WeightOfRankFusion,
    /// No model is loaded to embed with.
    #[error("no model is loaded to embed the query with")]
    NoEmbedder,
    /// No model is loaded to rerank with.
    #[error("no model is loaded to rerank with")]
    NoReranker,
    /// The reranker's head is of another task.
    #[error("the reranker's head does not score relevance")]
    NotAReranker,
    /// There is no head of this name.
    #[error("there is no head named `{name}`{}", list_heads(known))]
    NoHead {
        /// The name.
        name: String,
        /// The names of all heads.
        known: Vec<String>,
    },
    /// The table has no such document.
    #[error("the table has no document `{doc_id}`")]
    NoDocument {
        /// The document.
        doc_id: String,
    },
    /// The table has no such chunk.
    #[error("the table has no chunk {chunk} of a document `{doc_id}`")]
    NoChunk {
        /// The document.
        doc_id: String,
        /// The chunk.
        chunk: u32,
    },
    /// There is no vector index to tune.
    #[error("{uri}: there is no index on the vectors to tune: every search is exact")]
    NoVectorIndex {
        /// The table.
        uri: String,
    },
    /// There are no rows to tune an index with.
    #[error("{uri}: the table has no rows")]
    NoRows {
        /// The table.
        uri: String,
    },
}

/// A column that a request needs and the table does not have as it is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// There is no such column.
    #[error("the table has no column `{column}`")]
    Missing {
        /// The column.
        column: String,
    },
    /// The column has another type than this search needs.
    #[error("the column `{column}` is {found}, this search needs {expected}")]
    WrongType {
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// The needed type.
        expected: &'static str,
    },
    /// The column is not part of a hit.
    #[error("the column `{column}` is not shown in hits")]
    NotInHits {
        /// The column.
        column: String,
    },
    /// The request names the column twice.
    #[error("the column `{column}` is named twice")]
    NamedTwice {
        /// The column.
        column: String,
    },
}

fn list_heads(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!(": there are {}", known.join(", ")) }
}

impl SearchError {
    /// Adds the table and the action to an error of Lance.
    pub(crate) fn storage(uri: &str, action: &'static str) -> impl FnOnce(lance::Error) -> Self {
        move |source| Self::Storage { uri: uri.to_owned(), action, source: Arc::new(source) }
    }
}

impl Explain for SearchError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::Hub(error) => return error.hint(),
            Self::NoTable { .. } => Some("`polylance embed` and `polylance run` make tables"),
            Self::NoContract { .. } => Some("`polylance sql` reads any Lance table"),
            Self::DuplicateTable(_) => Some("name them: --table first=URI --table second=URI"),
            Self::ReadOnly(_) => Some("polylance changes tables with `run` and `embed` only"),
            Self::NoTextIndex { .. } => Some("`polylance index words` builds it; --mode vector searches without it"),
            Self::Filter { .. } => Some("`polylance show` lists the table's columns"),
            Self::Query(QueryError::NoHead { known, .. }) if known.is_empty() => {
                Some("--head NAME=TASK:MODEL names one")
            }
            _ => None,
        };
        hint.map(Cow::Borrowed)
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Hub(error) => error.class(),
            Self::Storage { .. } | Self::Backend(_) | Self::UnreadableContract { .. } => ErrorClass::Environment,
            _ => ErrorClass::User,
        }
    }
}

impl From<DataFusionError> for SearchError {
    /// An error from inside a plan: an error of a search as itself, a refused statement as [`SearchError::ReadOnly`],
    /// anything else as [`SearchError::Sql`].
    fn from(error: DataFusionError) -> Self {
        let error = match error {
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => return Self::from(*inner),
            DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(own) => return *own,
                Err(inner) => DataFusionError::External(inner),
            },
            error => error,
        };
        // An error that several tasks wait for is shared and cannot be moved out.
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
            // `SQLOptions` has no type for its refusals: they are known by the beginning of the message.
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
