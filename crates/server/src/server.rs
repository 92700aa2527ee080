//! Listening, and ending without cutting anybody off.

use std::{fmt, future::pending, net::SocketAddr, sync::Arc};

use datafusion::common::runtime::SpawnedTask;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::{net::TcpListener, time::timeout};

use crate::{
    ServedModels, ServerOptions,
    error::ServerError,
    flight,
    port::{Connections, Port},
    routes,
    sending::Budget,
    state::App,
    tls::{self, Certificate},
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
    /// Opens each `(name, address)` with its model, then listens. An empty name is made from the address.
    ///
    /// # Errors
    /// [`ServerError`]: before anything is loaded when the options do not fit.
    pub async fn bind(
        options: ServerOptions,
        tables: &[(String, String)],
        models: ServedModels,
    ) -> Result<Self, ServerError> {
        options.check()?;
        if let Some(address) = options.unencrypted() {
            tracing::warn!(%address, "other machines reach this address, and tokens and answers are sent unencrypted");
        }
        let certificate = options.tls.as_ref().map(|files| Certificate::read(files).map(Arc::new)).transpose()?;
        let tls = |protocol| certificate.as_ref().map(|shown| tls::acceptor(shown, protocol)).transpose();
        let (http_tls, flight_tls) = (tls("http/1.1")?, tls("h2")?);
        let http = listen(options.listen).await?;
        let flight = match options.flight {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let app = Box::pin(App::open(tables, models, options.tokens.clone(), options.limits.clone())).await?;
        let limits = &options.limits;
        let budget = Budget::new(limits.sending);
        let http = Port::new(http, Connections::http(routes::router(app.clone()), http_tls, limits, budget.clone()));
        let flight = flight.map(|listener| {
            Port::new(listener, Connections::flight(flight::router(app.clone()), flight_tls, limits, budget))
        });
        Ok(Self { app, http, flight, certificate, options })
    }

    /// Where it listens, as a browser writes it.
    ///
    /// # Errors
    /// When the system does not know the address.
    pub fn url(&self) -> Result<String, ServerError> {
        self.address(&self.http, self.options.listen, "http", "https")
    }

    /// Where it speaks Flight SQL, as its clients write it.
    ///
    /// # Errors
    /// When the system does not know the address.
    pub fn flight_url(&self) -> Result<Option<String>, ServerError> {
        let Some((port, asked)) = self.flight.as_ref().zip(self.options.flight) else { return Ok(None) };
        self.address(port, asked, "grpc", "grpc+tls").map(Some)
    }

    fn address(&self, port: &Port, asked: SocketAddr, open: &str, encrypted: &str) -> Result<String, ServerError> {
        let address = port.address().map_err(|source| ServerError::Listen { address: asked, source })?;
        Ok(format!("{}://{address}", if self.options.tls.is_some() { encrypted } else { open }))
    }

    /// What it serves.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn tables(&self) -> Result<Vec<ServedTable>, ServerError> {
        let snapshot = self.app.tables.current();
        let mut tables = Vec::new();
        for (name, table) in snapshot.iter() {
            let rows = Box::pin(table.count_rows(None)).await?;
            tables.push(ServedTable { name: name.to_owned(), rows, version: table.version() });
        }
        Ok(tables)
    }

    /// Answers until `end` is ready, then lets what was asked be answered, as long as the grace allows.
    ///
    /// # Errors
    /// Never by itself: what goes wrong with a connection ends that connection.
    pub async fn run(mut self, end: impl Future<Output = ()>) -> Result<(), ServerError> {
        let follower = {
            let (app, every) = (self.app.clone(), self.options.follow);
            SpawnedTask::spawn(async move { Box::pin(app.tables.follow(&app.models, &app.metrics, every)).await })
        };
        let renewal = self.certificate.take().map(|certificate| {
            let every = self.options.follow;
            SpawnedTask::spawn(async move { certificate.follow(every).await })
        });
        let ending = GracefulShutdown::new();
        let metrics = &self.app.metrics;
        let flight = async {
            match &mut self.flight {
                Some(port) => port.accept(&ending, |open| metrics.connections("flight", open)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = end => {}
            () = self.http.accept(&ending, |open| metrics.connections("http", open)) => {}
            () = flight => {}
        }
        self.app.end();
        let _open = (self.http.close(), self.flight.map(Port::close));
        drop((follower, renewal));
        if timeout(self.options.grace, ending.shutdown()).await.is_err() {
            tracing::warn!("requests were still being answered when the grace ended");
        }
        Ok(())
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })
}
