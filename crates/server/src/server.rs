//! Listening, and shutting down without cutting off responses.

use std::{fmt, future::pending, net::SocketAddr, sync::Arc};

use datafusion::common::runtime::SpawnedTask;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::{net::TcpListener, time::timeout};

use crate::{
    error::ServerError,
    flight,
    limits::response_memory::ResponseMemory,
    models::ServedModels,
    net::{Certificate, ConnectionHandler, Port, acceptor},
    options::ServerOptions,
    routes,
    state::App,
};

/// A server that is bound to its addresses.
pub struct Server {
    app: App,
    http: Port,
    flight: Option<Port>,
    certificate: Option<Arc<Certificate>>,
    options: ServerOptions,
}

/// A table that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedTable {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Its version.
    pub version: u64,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Server {
    /// Opens each `(name, address)` with its model, then listens. An empty name is derived from the address.
    ///
    /// # Errors
    /// [`ServerError`]; invalid options fail before anything is loaded.
    pub async fn bind(
        options: ServerOptions,
        tables: &[(String, String)],
        models: ServedModels,
    ) -> Result<Self, ServerError> {
        options.check()?;
        if let Some(address) = options.unencrypted_public_address() {
            tracing::warn!(%address, "other machines can reach this address, and tokens and responses are not encrypted");
        }
        let certificate = options.tls.as_ref().map(|files| Certificate::read(files).map(Arc::new)).transpose()?;
        let tls = |protocol| certificate.as_ref().map(|certificate| acceptor(certificate, protocol)).transpose();
        let (http_tls, flight_tls) = (tls("http/1.1")?, tls("h2")?);
        let http = listen(options.listen).await?;
        let flight = match options.flight {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let app = Box::pin(App::open(tables, models, options.tokens.clone(), options.limits.clone())).await?;
        let limits = &options.limits;
        let memory = ResponseMemory::new(limits.max_sending_bytes);
        let http =
            Port::new(http, ConnectionHandler::http(routes::router(app.clone()), http_tls, limits, memory.clone()));
        let flight = flight.map(|listener| {
            Port::new(listener, ConnectionHandler::flight(flight::router(app.clone()), flight_tls, limits, memory))
        });
        Ok(Self { app, http, flight, certificate, options })
    }

    /// The HTTP address as a URL.
    ///
    /// # Errors
    /// [`ServerError::Listen`] when the system does not know the address.
    pub fn url(&self) -> Result<String, ServerError> {
        self.address(&self.http, self.options.listen, "http", "https")
    }

    /// The Flight SQL address as its clients write it.
    ///
    /// # Errors
    /// [`ServerError::Listen`] when the system does not know the address.
    pub fn flight_url(&self) -> Result<Option<String>, ServerError> {
        let Some((port, requested)) = self.flight.as_ref().zip(self.options.flight) else { return Ok(None) };
        self.address(port, requested, "grpc", "grpc+tls").map(Some)
    }

    fn address(&self, port: &Port, requested: SocketAddr, plain: &str, encrypted: &str) -> Result<String, ServerError> {
        let address = port.address().map_err(|source| ServerError::Listen { address: requested, source })?;
        Ok(format!("{}://{address}", if self.options.tls.is_some() { encrypted } else { plain }))
    }

    /// The tables that it serves.
    ///
    /// # Errors
    /// [`ServerError::Search`] when a table cannot be read.
    pub async fn tables(&self) -> Result<Vec<ServedTable>, ServerError> {
        let snapshot = self.app.tables.current();
        let mut tables = Vec::new();
        for (name, table) in snapshot.iter() {
            let rows = Box::pin(table.count_rows(None)).await?;
            tables.push(ServedTable { name: name.to_owned(), rows, version: table.version() });
        }
        Ok(tables)
    }

    /// Serves requests until `shutdown` is ready, then lets running requests finish within the grace period.
    ///
    /// # Errors
    /// None at present: a failure on a connection ends that connection only.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let follower = {
            let (app, every) = (self.app.clone(), self.options.follow);
            SpawnedTask::spawn(async move { Box::pin(app.tables.follow(&app.models, &app.metrics, every)).await })
        };
        let renewal = self.certificate.take().map(|certificate| {
            let every = self.options.follow;
            SpawnedTask::spawn(async move { certificate.follow(every).await })
        });
        let graceful = GracefulShutdown::new();
        let metrics = &self.app.metrics;
        let flight = async {
            match &mut self.flight {
                Some(port) => port.accept(&graceful, |open| metrics.connections("flight", open)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = self.http.accept(&graceful, |open| metrics.connections("http", open)) => {}
            () = flight => {}
        }
        self.app.begin_shutdown();
        let _open = (self.http.close(), self.flight.map(Port::close));
        drop((follower, renewal));
        if timeout(self.options.grace, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests were still running when the grace period ended");
        }
        Ok(())
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })
}
