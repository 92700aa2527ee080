//! Arrow Flight SQL, on a port of its own: for ADBC, JDBC, ODBC and what is built on them.
//!
//! A statement here is what it is for `POST /v1/sql`, with the same checks and limits, but its rows are Arrow batches
//! that leave as they are made: their number has no limit, their time has. Nothing is kept between requests, neither
//! sessions nor statements: a prepared statement's handle is its text, with the values of its parameters.
//!
//! Protocol: <https://arrow.apache.org/docs/format/FlightSql.html>

mod catalog;
mod guard;
mod keys;
mod parameters;
mod read;
mod service;
mod status;
mod types;

pub(crate) use guard::router;
