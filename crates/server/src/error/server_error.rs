//! What keeps a server from starting, or from going on.

use std::{io, net::SocketAddr, path::PathBuf};

use polylance_search::SearchError;

/// The server could not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Every machine could send requests: set a token, or listen on a loopback address.
    #[error("{0} can be reached from other machines, and there is no token")]
    Unprotected(SocketAddr),
    /// The address is in use or not this machine's: choose another.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The certificate or its key cannot be used: check the file.
    #[error("{file}: {message}")]
    Tls {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// There is no table to serve, two tables have one name, or a name is not allowed: name them differently.
    #[error("{0}")]
    Tables(String),
    /// A table or its model cannot be opened.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The system could not start the threads.
    #[error("the threads for requests could not be started")]
    Threads(#[source] io::Error),
}
