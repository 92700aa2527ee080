//! Arrow Flight SQL, on a port of its own, for ADBC, JDBC, ODBC and the tools built on them.
//!
//! Statements have the same checks and limits as those of `POST /v1/sql`, but their rows are streamed as Arrow batches:
//! their number is not limited, their time is. The server keeps neither sessions nor statements between requests: the
//! handle of a prepared statement is its text with the values of its parameters.
//!
//! Protocol: <https://arrow.apache.org/docs/format/FlightSql.html>

mod catalog;
mod guard;
mod keys;
mod parameters;
mod rows;
mod service;
mod status;
mod types;
mod wire;

pub(crate) use guard::router;
