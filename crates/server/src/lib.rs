//! Search, SQL and models over HTTP, tools for assistants, SQL over Arrow Flight, and a web page to use them.
//!
//! A server reads tables and never writes them. Without tokens it answers this machine only. It limits what one request
//! may cost, and no response reveals where the tables are. It serves newer versions of a table as they are committed.
//!
//! The layers, from the outside: `net` (ports and connections), `middleware`, `routes` and `flight` (what clients may
//! request), `executor` and `limits` (where and how much requests compute), `tables` and `models`.

mod columns;
mod error;
mod executor;
mod extract;
mod flight;
mod json;
mod limits;
mod metrics;
mod middleware;
mod models;
mod net;
mod openapi;
mod options;
mod redact;
mod routes;
mod server;
mod state;
mod statement;
mod tables;
mod token;

#[cfg(test)]
mod tests;

pub use error::ServerError;
pub use limits::Limits;
pub use models::ServedModels;
pub use options::{ServerOptions, TlsFiles};
pub use server::{ServedTable, Server};
pub use token::{TokenError, TokenHash};
