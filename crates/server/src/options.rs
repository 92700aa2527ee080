//! How a server is started.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{error::ServerError, limits::Limits, token::TokenHash};

/// Where a server listens, which clients it accepts and how much it does for one request.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The HTTP address; port 0 is any free port.
    pub listen: SocketAddr,
    /// The Arrow Flight SQL address, if any.
    pub flight: Option<SocketAddr>,
    /// The tokens that clients may use. Without tokens every client is accepted, and only loopback addresses are allowed.
    pub tokens: Vec<TokenHash>,
    /// The certificate and its key; without them connections are not encrypted.
    pub tls: Option<TlsFiles>,
    /// What one request may cost.
    pub limits: Limits,
    /// The interval of the checks for newer versions of the tables and for a newer certificate.
    pub follow: Duration,
    /// How long running requests may take to end after the shutdown signal.
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
    /// Checks the options without loading anything.
    ///
    /// # Errors
    /// [`ServerError::Unprotected`] when other machines can reach an address and there are no tokens.
    pub fn check(&self) -> Result<(), ServerError> {
        match self.public_address() {
            Some(address) if self.tokens.is_empty() => Err(ServerError::Unprotected(address)),
            _ => Ok(()),
        }
    }

    /// An address that other machines reach without TLS.
    pub(crate) fn unencrypted_public_address(&self) -> Option<SocketAddr> {
        self.public_address().filter(|_| self.tls.is_none())
    }

    /// An address that other machines can reach.
    fn public_address(&self) -> Option<SocketAddr> {
        [Some(self.listen), self.flight].into_iter().flatten().find(|address| !address.ip().is_loopback())
    }
}

/// PEM files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, followed by those that signed it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}
