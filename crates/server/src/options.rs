//! How a server is started.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{ServerError, TokenHash};

/// Where a server listens, whom it answers and how much it does for one request.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The address; port 0 is any that is free.
    pub listen: SocketAddr,
    /// Where Arrow Flight SQL is spoken, if anywhere.
    pub flight: Option<SocketAddr>,
    /// Who may ask: nobody is asked for a token when there is none, and then only this machine is listened to.
    pub tokens: Vec<TokenHash>,
    /// The certificate and its key; without them connections are not encrypted.
    pub tls: Option<TlsFiles>,
    /// What one request may cost.
    pub limits: Limits,
    /// How often each table is looked at for a newer version, and the certificate for a newer one.
    pub follow: Duration,
    /// How long requests may take to end once the server is told to.
    pub grace: Duration,
}

impl Default for ServerOptions {
    /// `127.0.0.1:8000` without Flight SQL, without tokens and without TLS.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            flight: None,
            tokens: Vec::new(),
            tls: None,
            limits: Limits::default(),
            follow: Duration::from_secs(5),
            grace: Duration::from_secs(30),
        }
    }
}

impl ServerOptions {
    /// Whether a server may be started so: to be asked before anything is loaded.
    ///
    /// # Errors
    /// [`ServerError::Unprotected`] when other machines could ask and no token is asked for.
    pub fn check(&self) -> Result<(), ServerError> {
        let mut addresses = [Some(self.listen), self.flight].into_iter().flatten();
        match addresses.find(|address| !address.ip().is_loopback()) {
            Some(address) if self.tokens.is_empty() => Err(ServerError::Unprotected(address)),
            _ => Ok(()),
        }
    }
}

impl ServerOptions {
    /// An address that other machines reach without TLS.
    pub(crate) fn unencrypted(&self) -> Option<SocketAddr> {
        let addresses = [Some(self.listen), self.flight].into_iter().flatten();
        addresses.filter(|_| self.tls.is_none()).find(|address| !address.ip().is_loopback())
    }
}

/// PEM files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, then those that signed it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What a request may cost. More is refused, never cut in silence.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of the body of a request with inputs; of others 1 MiB at most.
    pub body: usize,
    /// Hits of a search.
    pub hits: usize,
    /// Texts, token lists or passages in a request.
    pub inputs: usize,
    /// Bytes of a SQL statement, or of a condition.
    pub statement: usize,
    /// Rows of a SQL answer; what is cut off is told.
    pub rows: usize,
    /// Bytes of the rows of an answer; what is cut off is told.
    pub answer: usize,
    /// Bytes that all SQL statements together may hold.
    pub sql_memory: usize,
    /// Bytes of temporary files that all SQL statements together may write.
    pub sql_disk: u64,
    /// How long a request may be worked on.
    pub time: Duration,
    /// Requests that are worked on at once.
    pub requests: usize,
    /// SQL statements among them.
    pub statements: usize,
    /// How long a request waits for its turn before it is sent away.
    pub queue: Duration,
    /// Open connections on each port; more wait to be accepted.
    pub connections: usize,
    /// Open connections of one client's address on each port; more are closed.
    pub client_connections: usize,
    /// Bytes of all answers that are made and not yet taken by their clients.
    pub sending: usize,
    /// How long a client of Flight SQL may keep a connection on which it calls nothing.
    pub idle_time: Duration,
    /// How long a client may take to send the head of a request, or to begin the next one.
    pub header_time: Duration,
    /// How long a client may take to send a body, and to take a part of an answer.
    pub body_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 8 << 20,
            hits: 1000,
            inputs: 2048,
            statement: 16 << 10,
            rows: 10_000,
            answer: 32 << 20,
            sql_memory: 512 << 20,
            sql_disk: 4 << 30,
            time: Duration::from_secs(30),
            requests: 64,
            statements: 8,
            queue: Duration::from_secs(2),
            connections: 512,
            client_connections: 128,
            sending: 256 << 20,
            idle_time: Duration::from_mins(5),
            header_time: Duration::from_secs(10),
            body_time: Duration::from_secs(15),
        }
    }
}
