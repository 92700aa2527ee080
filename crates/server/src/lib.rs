//! Search, SQL and models over HTTP, SQL over Arrow Flight too, and the page to use them in a browser.
//!
//! A server reads tables and never writes them. It answers this machine alone unless tokens say who may ask, bounds
//! what one request may cost, and tells nobody where the tables are. Newer versions of a table are served as they are
//! committed.

mod addresses;
mod annotations;
mod auth;
mod batching;
mod error;
mod extract;
mod flight;
mod host;
mod metrics;
mod models;
mod observe;
mod openapi;
mod options;
mod port;
mod public_text;
mod routes;
mod rows;
mod sending;
mod server;
mod state;
mod statement;
mod streams;
mod tables;
mod tls;
mod work;

#[cfg(test)]
mod tests;

pub use auth::{TokenError, TokenHash};
pub use error::ServerError;
pub use models::ServedModels;
pub use options::{Limits, ServerOptions, TlsFiles};
pub use server::{ServedTable, Server};
