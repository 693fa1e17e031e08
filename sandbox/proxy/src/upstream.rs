//! Connections to pods: HTTP/1.1, kept alive and used again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::payload::Payload;

/// ingress-nginx's `upstream-keepalive-timeout`.
const IDLE: Duration = Duration::from_secs(60);
/// ingress-nginx's `upstream-keepalive-connections`, here per address.
const IDLE_CONNECTIONS: usize = 320;

/// Why a pod gave no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection: refused, unreachable or reset while it was made.
    Connect,
    /// No connection in time.
    ConnectTimeout,
    /// The connection ended before any byte of the request was written.
    Unsent,
    /// The connection ended after the request was written, wholly or in part.
    Dropped,
    /// No answer in time.
    ReadTimeout,
}

/// A connection to a pod.
pub(crate) struct Connection {
    address: SocketAddr,
    sender: SendRequest<Payload>,
    /// Whether it has carried a request before.
    pub(crate) reused: bool,
}

/// An idle connection, and since when.
type Idle = (SendRequest<Payload>, Instant);

/// The idle connections, newest last.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
}

impl Pool {
    /// An idle connection that is still open, or a new one.
    pub(crate) async fn connect(&self, address: SocketAddr, within: Duration) -> Result<Connection, Failure> {
        if let Some(sender) = self.take(address) {
            return Ok(Connection { address, sender, reused: true });
        }
        let stream = match tokio::time::timeout(within, TcpStream::connect(address)).await {
            Err(_) => return Err(Failure::ConnectTimeout),
            Ok(Err(error)) => {
                tracing::debug!("connecting to {address}: {error}");
                return Err(Failure::Connect);
            }
            Ok(Ok(stream)) => stream,
        };
        let _ = stream.set_nodelay(true);
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Connect)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("connection to {address}: {error}");
            }
        });
        Ok(Connection { address, sender, reused: false })
    }

    fn take(&self, address: SocketAddr) -> Option<SendRequest<Payload>> {
        let mut idle = self.idle.lock();
        let connections = idle.get_mut(&address)?;
        connections.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < IDLE);
        let newest = connections.iter().rposition(|(sender, _)| sender.is_ready())?;
        Some(connections.remove(newest).0)
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn keep(&self, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        let connections = idle.entry(connection.address).or_default();
        if connections.len() < IDLE_CONNECTIONS {
            connections.push((connection.sender, Instant::now()));
        }
    }

    /// Closes what was idle too long and forgets what the pods closed.
    pub(crate) fn sweep(&self) {
        let mut idle = self.idle.lock();
        idle.retain(|_, connections| {
            connections.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < IDLE);
            !connections.is_empty()
        });
    }
}

impl Connection {
    /// Sends the request and waits for the head of the answer. With the failure comes back the request, if none of it
    /// was written.
    pub(crate) async fn send(
        &mut self,
        request: Request<Payload>,
    ) -> Result<Response<Incoming>, (Failure, Option<Request<Payload>>)> {
        self.sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
            Some(request) => (Failure::Unsent, Some(request)),
            None => {
                tracing::debug!("request to {}: {}", self.address, error.into_error());
                (Failure::Dropped, None)
            }
        })
    }
}
