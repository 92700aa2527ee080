//! A port and its connections: how many, how they are answered, and how long a client may take.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

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

use crate::{
    Limits,
    sending::{self, Activity, Budget, Patience},
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
                Ok(Some((stream, place))) => {
                    self.open.spawn(Arc::clone(&self.connections).answer(stream, place, ending.watcher()));
                }
                Ok(None) => {}
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
    clients: Arc<Clients>,
    budget: Budget,
    header_time: Duration,
    body_time: Duration,
    /// How long a connection of HTTP/2 may rest.
    patience: Patience,
}

/// Open connections by their clients' addresses.
#[derive(Debug)]
struct Clients {
    open: Mutex<HashMap<IpAddr, usize>>,
    most: usize,
}

impl Clients {
    /// A place for one more connection of this address, unless it has its share.
    fn place(self: &Arc<Self>, address: IpAddr) -> Option<Client> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Client { clients: Arc::clone(self), address })
    }
}

/// One connection of an address.
struct Client {
    clients: Arc<Clients>,
    address: IpAddr,
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut open = self.clients.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// What a connection holds while it is open.
struct Place {
    _among_all: OwnedSemaphorePermit,
    _of_client: Client,
}

enum Protocol {
    Http1(http1::Builder),
    Http2(http2::Builder<TokioExecutor>),
}

impl Connections {
    pub(crate) fn http(router: Router, tls: Option<TlsAcceptor>, limits: &Limits, budget: Budget) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.header_time).max_header_size(HEAD);
        Self::new(router, tls, limits, budget, Protocol::Http1(http))
    }

    /// For gRPC, whose clients keep their connections: those that are gone are found out by asking them.
    pub(crate) fn flight(router: Router, tls: Option<TlsAcceptor>, limits: &Limits, budget: Budget) -> Self {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(limits.header_time)
            .keep_alive_timeout(limits.body_time)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD as u32);
        Self::new(router, tls, limits, budget, Protocol::Http2(http))
    }

    fn new(router: Router, tls: Option<TlsAcceptor>, limits: &Limits, budget: Budget, protocol: Protocol) -> Self {
        Self {
            router,
            tls,
            protocol,
            places: Arc::new(Semaphore::new(limits.connections)),
            clients: Arc::new(Clients { open: Mutex::default(), most: limits.client_connections.max(1) }),
            budget,
            header_time: limits.header_time,
            body_time: limits.body_time,
            patience: Patience {
                first: limits.body_time,
                idle: limits.idle_time,
                stalled: limits.time + 2 * limits.queue + 2 * limits.body_time,
            },
        }
    }

    /// The next connection once there is a place for it: until then the system lets it wait. None when its client has
    /// more than its share already.
    async fn accept(&self, listener: &TcpListener) -> io::Result<Option<(TcpStream, Place)>> {
        let among_all = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, client): (TcpStream, SocketAddr) = listener.accept().await?;
        let Some(of_client) = self.clients.place(client.ip().to_canonical()) else {
            tracing::debug!(client = %client.ip(), "a client has too many connections: this one is closed");
            return Ok(None);
        };
        // Answers are written whole: nothing is gained by waiting for more.
        stream.set_nodelay(true)?;
        Ok(Some((stream, Place { _among_all: among_all, _of_client: of_client })))
    }

    async fn answer(self: Arc<Self>, stream: TcpStream, _place: Place, watcher: Watcher) {
        let stream = Impatient::new(stream, self.body_time);
        let Some(tls) = &self.tls else { return self.serve(stream, watcher).await };
        match timeout(self.header_time, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
            Err(_) => tracing::debug!("a handshake took too long"),
        }
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, watcher: Watcher) {
        let activity = Activity::new();
        let (budget, calls) = (self.budget.clone(), activity.clone());
        let counted = from_fn(move |request, next| sending::count(budget.clone(), calls.clone(), request, next));
        let service = TowerToHyperService::new(self.router.clone().layer(counted));
        let ended = match &self.protocol {
            Protocol::Http1(http) => watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await,
            Protocol::Http2(http) => {
                let stream = Greeted::new(stream, PREFACE, self.header_time);
                // Its pings keep a connection open, and are no calls.
                tokio::select! {
                    ended = watcher.watch(http.serve_connection(TokioIo::new(stream), service)) => ended,
                    () = activity.rests(self.patience) => {
                        tracing::debug!("a connection without calls is closed");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_does_not_take_the_places_of_others() {
        let clients = Arc::new(Clients { open: Mutex::default(), most: 2 });
        let (greedy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut held: Vec<_> = (0..2).map(|_| clients.place(greedy).unwrap()).collect();
        assert!(clients.place(greedy).is_none());
        assert!(clients.place(other).is_some());
        held.pop();
        assert!(clients.place(greedy).is_some());
        drop(held);
        assert!(clients.open.lock().unwrap().is_empty());
    }
}
