//! A port and its connections: how many, how they are answered, and how long a client may take.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
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

use crate::{
    Limits,
    streams::{Greeted, Impatient},
};

/// Bytes of a request's head at most.
const HEAD: usize = 64 << 10;

/// Bytes with which a client of HTTP/2 begins (RFC 9113, 3.4).
const PREFACE: usize = 24;

/// Calls of one client of HTTP/2 at once: more wait for their turn at the client.
const STREAMS: u32 = 32;

/// How long to wait when the system accepts no connection: it has no file for it, and others will close theirs.
const BREATH: Duration = Duration::from_millis(100);

/// A port that is listened to, with its open connections.
pub(crate) struct Port {
    listener: TcpListener,
    connections: Arc<Connections>,
    open: JoinSet<()>,
}

impl Port {
    pub(crate) fn new(listener: TcpListener, connections: Connections) -> Self {
        Self { listener, connections: Arc::new(connections), open: JoinSet::new() }
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers connections for ever. `count` is told how many are open.
    pub(crate) async fn accept(&mut self, ending: &GracefulShutdown, count: impl Fn(usize)) {
        loop {
            let accepted = self.connections.accept(&self.listener).await;
            while self.open.try_join_next().is_some() {}
            match accepted {
                Ok((stream, place)) => {
                    self.open.spawn(Arc::clone(&self.connections).answer(stream, place, ending.watcher()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(BREATH).await;
                }
            }
            count(self.open.len());
        }
    }

    /// Accepts no more. What is open is answered until the result is dropped.
    pub(crate) fn close(self) -> JoinSet<()> {
        self.open
    }
}

/// How connections are answered.
pub(crate) struct Connections {
    router: Router,
    tls: Option<TlsAcceptor>,
    protocol: Protocol,
    places: Arc<Semaphore>,
    header_time: Duration,
    body_time: Duration,
}

enum Protocol {
    Http1(http1::Builder),
    Http2(http2::Builder<TokioExecutor>),
}

impl Connections {
    pub(crate) fn http(router: Router, tls: Option<TlsAcceptor>, limits: &Limits) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.header_time).max_header_size(HEAD);
        Self::new(router, tls, limits, Protocol::Http1(http))
    }

    /// For gRPC, whose clients keep their connections: those that are gone are found out by asking them.
    pub(crate) fn flight(router: Router, tls: Option<TlsAcceptor>, limits: &Limits) -> Self {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(limits.header_time)
            .keep_alive_timeout(limits.body_time)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD as u32);
        Self::new(router, tls, limits, Protocol::Http2(http))
    }

    fn new(router: Router, tls: Option<TlsAcceptor>, limits: &Limits, protocol: Protocol) -> Self {
        let places = Arc::new(Semaphore::new(limits.connections));
        Self { router, tls, protocol, places, header_time: limits.header_time, body_time: limits.body_time }
    }

    /// The next connection once there is a place for it: until then the system lets it wait.
    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
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
        let ended = match &self.protocol {
            Protocol::Http1(http) => watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await,
            Protocol::Http2(http) => {
                let stream = Greeted::new(stream, PREFACE, self.header_time);
                watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}
