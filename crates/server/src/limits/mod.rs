//! The limits of a request: their values, and what enforces them.
//!
//! | limit | enforced by |
//! |---|---|
//! | bytes and time of a body, large bodies at once | [`body`] |
//! | bytes and nesting of a statement or a condition | [`statement_size`] |
//! | requests at once, and how many may wait | [`concurrency`], for the executor |
//! | memory of responses that clients have not received | [`response_memory`] |
//! | connections of one client | [`clients`] |
//! | rows and bytes of a response to a statement | `json::query_rows` |
//! | memory and disk of all statements | `SqlRuntime` of the search crate, opened in `state` |

pub(crate) mod body;
pub(crate) mod clients;
pub(crate) mod concurrency;
pub(crate) mod response_memory;
pub(crate) mod statement_size;

use std::time::Duration;

/// What a request may cost. A request that needs more is refused, or its response is marked as truncated.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of the body of a request with inputs; other bodies have at most 1 MiB.
    pub max_body_bytes: usize,
    /// Hits of a search.
    pub max_hits: usize,
    /// Texts, token lists or passages in a request.
    pub max_inputs: usize,
    /// Bytes of a SQL statement, or of a condition.
    pub max_statement_bytes: usize,
    /// Rows of a SQL response; a response with fewer rows than the result is marked as truncated.
    pub max_rows: usize,
    /// Bytes of the rows of a SQL response; a response with fewer rows than the result is marked as truncated.
    pub max_response_bytes: usize,
    /// Bytes of memory for all SQL statements together.
    pub sql_memory_bytes: usize,
    /// Bytes of temporary files for all SQL statements together.
    pub sql_disk_bytes: u64,
    /// How long a request may run.
    pub request_timeout: Duration,
    /// Requests that run at once.
    pub max_requests: usize,
    /// SQL statements among them.
    pub max_statements: usize,
    /// How long a request waits for its turn before it is refused as busy.
    pub queue_timeout: Duration,
    /// Open connections on each port; more wait to be accepted.
    pub max_connections: usize,
    /// Open connections of one client address on each port; more are closed.
    pub max_client_connections: usize,
    /// Bytes of all responses that their clients have not yet received.
    pub max_sending_bytes: usize,
    /// How long a Flight SQL client may keep a connection without a call.
    pub idle_timeout: Duration,
    /// How long a client may take to send the head of a request, or to begin the next one.
    pub header_timeout: Duration,
    /// How long a client may take to send a body, or to receive a part of a response.
    pub body_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 8 << 20,
            max_hits: 1000,
            max_inputs: 2048,
            max_statement_bytes: 16 << 10,
            max_rows: 10_000,
            max_response_bytes: 32 << 20,
            sql_memory_bytes: 512 << 20,
            sql_disk_bytes: 4 << 30,
            request_timeout: Duration::from_secs(30),
            max_requests: 64,
            max_statements: 8,
            queue_timeout: Duration::from_secs(2),
            max_connections: 512,
            max_client_connections: 128,
            max_sending_bytes: 256 << 20,
            idle_timeout: Duration::from_mins(5),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(15),
        }
    }
}
