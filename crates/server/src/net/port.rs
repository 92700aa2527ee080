//! A port and its connections: how many may be open, how they are served, and how long a client may take.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, middleware::from_fn};
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

use super::{
    activity::{Activity, IdleTimeouts},
    first_bytes_timeout::FirstBytesTimeout,
    response_body,
    write_timeout::WriteTimeout,
};
use crate::limits::{
    Limits,
    clients::{ClientConnections, ClientPermit},
    response_memory::ResponseMemory,
};

/// Bytes of a request's head.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// The client connection preface of HTTP/2 (RFC 9113, 3.4).
const HTTP2_PREFACE_BYTES: usize = 24;

/// Concurrent streams of one HTTP/2 connection; the client queues more calls.
const MAX_STREAMS_PER_CONNECTION: u32 = 32;

/// The pause after a failed accept: the system has no file descriptor left until other connections close.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A port that is listened to, with its open connections.
pub(crate) struct Port {
    listener: TcpListener,
    handler: Arc<ConnectionHandler>,
    open: JoinSet<()>,
}

impl Port {
    pub(crate) fn new(listener: TcpListener, handler: ConnectionHandler) -> Self {
        Self { listener, handler: Arc::new(handler), open: JoinSet::new() }
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts and serves connections forever. `on_open` receives the number of open ones.
    pub(crate) async fn accept(&mut self, shutdown: &GracefulShutdown, on_open: impl Fn(usize)) {
        loop {
            let accepted = self.handler.accept(&self.listener).await;
            while self.open.try_join_next().is_some() {}
            match accepted {
                Ok(Some((stream, permit))) => {
                    self.open.spawn(Arc::clone(&self.handler).handle(stream, permit, shutdown.watcher()));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
            on_open(self.open.len());
        }
    }

    /// Accepts no more. Open connections are served until the result is dropped.
    pub(crate) fn close(self) -> JoinSet<()> {
        self.open
    }
}

/// Serves the connections of a port.
pub(crate) struct ConnectionHandler {
    router: Router,
    tls: Option<TlsAcceptor>,
    protocol: Protocol,
    permits: Arc<Semaphore>,
    clients: Arc<ClientConnections>,
    response_memory: ResponseMemory,
    header_timeout: Duration,
    body_timeout: Duration,
    /// For connections of HTTP/2.
    idle_timeouts: IdleTimeouts,
}

/// Held by a connection while it is open.
struct ConnectionPermit {
    _of_port: OwnedSemaphorePermit,
    _of_client: ClientPermit,
}

enum Protocol {
    Http1(http1::Builder),
    Http2(http2::Builder<TokioExecutor>),
}

impl ConnectionHandler {
    pub(crate) fn http(
        router: Router,
        tls: Option<TlsAcceptor>,
        limits: &Limits,
        response_memory: ResponseMemory,
    ) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_header_size(MAX_HEADER_BYTES);
        Self::new(router, tls, limits, response_memory, Protocol::Http1(http))
    }

    /// For gRPC, whose clients keep their connections: pings find those that are gone.
    pub(crate) fn flight(
        router: Router,
        tls: Option<TlsAcceptor>,
        limits: &Limits,
        response_memory: ResponseMemory,
    ) -> Self {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(limits.header_timeout)
            .keep_alive_timeout(limits.body_timeout)
            .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
            .max_header_list_size(MAX_HEADER_BYTES as u32);
        Self::new(router, tls, limits, response_memory, Protocol::Http2(http))
    }

    fn new(
        router: Router,
        tls: Option<TlsAcceptor>,
        limits: &Limits,
        response_memory: ResponseMemory,
        protocol: Protocol,
    ) -> Self {
        Self {
            router,
            tls,
            protocol,
            permits: Arc::new(Semaphore::new(limits.max_connections)),
            clients: ClientConnections::new(limits.max_client_connections),
            response_memory,
            header_timeout: limits.header_timeout,
            body_timeout: limits.body_timeout,
            idle_timeouts: IdleTimeouts {
                unanswered: limits.body_timeout,
                between_calls: limits.idle_timeout,
                stalled: limits.request_timeout + 2 * limits.queue_timeout + 2 * limits.body_timeout,
            },
        }
    }

    /// The next connection, when one more may be open: until then it waits in the system's queue. `None` when its client
    /// has too many already.
    async fn accept(&self, listener: &TcpListener) -> io::Result<Option<(TcpStream, ConnectionPermit)>> {
        let of_port = Arc::clone(&self.permits).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, client): (TcpStream, SocketAddr) = listener.accept().await?;
        let Some(of_client) = self.clients.acquire(client.ip().to_canonical()) else {
            tracing::debug!(client = %client.ip(), "closed a connection: the client has too many");
            return Ok(None);
        };
        // Responses are written whole: there is nothing to wait for.
        stream.set_nodelay(true)?;
        Ok(Some((stream, ConnectionPermit { _of_port: of_port, _of_client: of_client })))
    }

    async fn handle(self: Arc<Self>, stream: TcpStream, _permit: ConnectionPermit, watcher: Watcher) {
        let stream = WriteTimeout::new(stream, self.body_timeout);
        let Some(tls) = &self.tls else { return self.serve(stream, watcher).await };
        match timeout(self.header_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake timed out"),
        }
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, watcher: Watcher) {
        let activity = Activity::new();
        let (memory, calls) = (self.response_memory.clone(), activity.clone());
        let tracked = from_fn(move |request, next| response_body::track(memory.clone(), calls.clone(), request, next));
        let service = TowerToHyperService::new(self.router.clone().layer(tracked));
        let ended = match &self.protocol {
            Protocol::Http1(http) => watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await,
            Protocol::Http2(http) => {
                let stream = FirstBytesTimeout::new(stream, HTTP2_PREFACE_BYTES, self.header_timeout);
                // A client's pings keep a connection open, and are no calls.
                tokio::select! {
                    ended = watcher.watch(http.serve_connection(TokioIo::new(stream), service)) => ended,
                    () = activity.until_idle(self.idle_timeouts) => {
                        tracing::debug!("closed an idle connection");
                        Ok(())
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}
