//! Vector search and SQL over Lance tables.
//!
//! A query is embedded by the contract in the table it searches, so that its vector may be compared with
//! the table's. SQL reads tables and never writes them.

mod describe;
mod error;
mod nearest;
mod open;
mod sql;

pub use describe::{ColumnDescription, IndexDescription, TableDescription, VersionDescription, describe};
pub use error::SearchError;
pub use nearest::{SearchRequest, search};
pub use open::table_contract;
pub use sql::{SqlSession, default_table_name};
