//! Where clients come in: how many there may be, how long one may take, and how they are let finish.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use sandbox_connections::{Held, Limits, Listener, Over, Reclaim, Room, Watched, raise_descriptor_limit};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::proxy::Proxy;

/// nginx's `client_header_timeout`, and ingress-nginx's `keepalive_timeout`.
pub const LIMITS: Limits = Limits { head: Duration::from_secs(60), idle: Duration::from_secs(75) };
/// nginx's `send_timeout`: how long a client may read nothing of its answer.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// ingress-nginx's `max-worker-connections`.
const CONNECTIONS: usize = 16_384;
/// How many clients may be connected, and how long one may take.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For all listeners together.
    pub room: Arc<Room>,
    /// For a request's head, and between requests.
    pub limits: Limits,
}

impl Clients {
    /// nginx's limits, for as many clients as there are descriptors for: each takes another one to its pod.
    #[must_use]
    pub fn of_nginx() -> Clients {
        let descriptors = usize::try_from(raise_descriptor_limit()).unwrap_or(usize::MAX);
        let most = (descriptors / 2).saturating_sub(64).min(CONNECTIONS);
        Clients { room: Room::new(most), limits: LIMITS }
    }
}

/// Serves the proxy to `clients` until `shutdown`, then lets requests under way finish within `drain`.
pub async fn serve(
    listener: TcpListener,
    clients: Clients,
    proxy: Arc<Proxy>,
    shutdown: CancellationToken,
    drain: Duration,
) {
    let Clients { room, limits } = clients;
    let mut listener = Listener::new(listener, room);
    let connections = GracefulShutdown::new();
    let mut memory = Reclaim::default();
    let mut sweep = tokio::time::interval(Duration::from_secs(5));
    loop {
        memory.look(connections.count());
        let (stream, remote, place) = tokio::select! {
            () = shutdown.cancelled() => break,
            _ = sweep.tick() => {
                proxy.sweep();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let service = {
            let (proxy, place) = (Arc::clone(&proxy), Arc::clone(&place));
            service_fn(move |request| {
                let (proxy, under_way) = (Arc::clone(&proxy), place.begin());
                async move {
                    let answer = proxy.handle(remote, request).await?;
                    Ok::<_, Infallible>(answer.map(|body| Held::new(body, Some(under_way))))
                }
            })
        };
        let stream = Watched::new(stream, Arc::clone(&place), SEND_TIMEOUT);
        let connection = connections.watch(server().serve_connection(TokioIo::new(stream), service));
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!("connection from {remote}: {error}");
                },
                over = place.over(limits) => {
                    tracing::debug!("connection from {remote}: {over:?}");
                    if over == (Over::Head { begun: true }) {
                        proxy.log_unfinished(remote, Instant::now() - limits.head);
                    }
                }
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, connections.shutdown()).await.is_err() {
        tracing::warn!("requests still under way after {drain:?} are cut off");
    }
}

/// What speaks HTTP/1.1 to the clients of a listener.
#[must_use]
pub fn server() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // How long a client may take, its connection says.
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    builder
}
