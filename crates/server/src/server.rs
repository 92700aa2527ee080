//! Listening, and ending without cutting anybody off.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use datafusion::common::runtime::SpawnedTask;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{Limits, ServedModels, ServerOptions, connection::Impatient, error::ServerError, routes, state::App, tls};

/// Bytes of a request's head at most.
const HEAD: usize = 64 << 10;

/// How long to wait when the system accepts no connection: it has no file for it, and others will close theirs.
const BREATH: Duration = Duration::from_millis(100);

/// A server that is bound to its address.
pub struct Server {
    app: App,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
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
        let tls = options.tls.as_ref().map(tls::acceptor).transpose()?;
        let listen = |source| ServerError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
        let app = Box::pin(App::open(tables, models, options.tokens.clone(), options.limits.clone())).await?;
        Ok(Self { app, listener, tls, options })
    }

    /// Where it listens, as a browser writes it.
    ///
    /// # Errors
    /// When the system does not know the address.
    pub fn url(&self) -> Result<String, ServerError> {
        let address = self.listener.local_addr().map_err(|source| self.listen_error(source))?;
        Ok(format!("{}://{address}", if self.tls.is_some() { "https" } else { "http" }))
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
    pub async fn run(self, end: impl Future<Output = ()>) -> Result<(), ServerError> {
        let follower = {
            let (app, every) = (self.app.clone(), self.options.follow);
            SpawnedTask::spawn(async move { Box::pin(app.tables.follow(&app.models, &app.metrics, every)).await })
        };
        let connections = Connections::new(routes::router(self.app.clone()), self.tls.clone(), &self.options.limits);
        let ending = GracefulShutdown::new();
        let mut open = JoinSet::new();
        let mut end = std::pin::pin!(end);
        loop {
            let accepted = tokio::select! {
                () = &mut end => break,
                accepted = connections.accept(&self.listener) => accepted,
            };
            while open.try_join_next().is_some() {}
            match accepted {
                Ok((stream, place)) => {
                    open.spawn(Arc::clone(&connections).answer(stream, place, ending.watcher()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(BREATH).await;
                }
            }
            self.app.metrics.connections(open.len());
        }
        self.app.end();
        drop((self.listener, follower));
        if timeout(self.options.grace, ending.shutdown()).await.is_err() {
            tracing::warn!("requests were still being answered when the grace ended");
        }
        Ok(())
    }

    fn listen_error(&self, source: std::io::Error) -> ServerError {
        ServerError::Listen { address: self.options.listen, source }
    }
}

/// How connections are answered.
struct Connections {
    router: Router,
    tls: Option<TlsAcceptor>,
    http: http1::Builder,
    places: Arc<Semaphore>,
    header_time: Duration,
    body_time: Duration,
}

impl Connections {
    fn new(router: Router, tls: Option<TlsAcceptor>, limits: &Limits) -> Arc<Self> {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.header_time).max_header_size(HEAD);
        Arc::new(Self {
            router,
            tls,
            http,
            places: Arc::new(Semaphore::new(limits.connections)),
            header_time: limits.header_time,
            body_time: limits.body_time,
        })
    }

    /// The next connection once there is a place for it: until then the system lets it wait.
    async fn accept(&self, listener: &TcpListener) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(std::io::Error::other)?;
        let (stream, _): (TcpStream, SocketAddr) = listener.accept().await?;
        // Answers are written whole: nothing is gained by waiting for more.
        stream.set_nodelay(true)?;
        Ok((stream, place))
    }

    async fn answer(self: Arc<Self>, stream: TcpStream, _place: OwnedSemaphorePermit, watcher: Watcher) {
        let stream = Impatient::new(stream, self.body_time);
        let Some(tls) = &self.tls else { return self.serve(stream, watcher).await };
        match timeout(self.header_time, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
            Err(_) => tracing::debug!("a handshake took too long"),
        }
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, watcher: Watcher) {
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}
