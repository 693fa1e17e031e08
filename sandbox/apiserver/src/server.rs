//! The server itself: the one place every request passes, over TLS or in process.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use futures::future::BoxFuture;
use http::{Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sandbox_connections::{Connection, Held, Limits, Listener, Over, Reclaim, Room};
use sandbox_contract::Kubelet;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::faults::{Asked, Faults};
use crate::rest;
use crate::state::Api;
use crate::status::ApiError;
use crate::tls::Tls;

/// What connections get to finish in when the server ends.
const DRAIN: Duration = Duration::from_secs(2);
/// Connections that have not yet shown the token. Who comes with one in hand needs its place for some milliseconds.
const STRANGERS: usize = 512;
/// From the first byte of the handshake to the first request with a token; then Kubernetes' own `IdleTimeout`.
const LIMITS: Limits = Limits { head: Duration::from_secs(10), idle: Duration::from_secs(90) };
/// What a connection gets to end in that is told to.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How often what connections have freed is looked after while no new ones come.
const RECLAIM_EVERY: Duration = Duration::from_secs(2);
/// What is read, and what is to be sent, of one connection or stream.
const BUFFER_BYTES: usize = 64 * 1024;
/// The headers of one request.
const HEADER_BYTES: u32 = 64 * 1024;
/// Go's default, and so Kubernetes'.
const MOST_STREAMS: u32 = 250;
/// A client on HTTP/2 that does not answer is gone.
const PING_EVERY: Duration = Duration::from_secs(30);

/// An API server with an in-memory store. Clones share the store.
#[derive(Clone)]
pub struct ApiServer {
    api: Arc<Api>,
}

impl ApiServer {
    /// An empty store with the four namespaces every cluster has; over sockets, requests must carry this bearer token.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "the server is the token's only keeper")]
    pub fn new(token: String) -> Self {
        ApiServer { api: Arc::new(Api::new(&token)) }
    }

    /// A client in this process: no socket, no token. Its default namespace is `default`.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        let api = self.api.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(pass(api, request.map(Body::new), From::Inside).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Connects the node. Before this, logs, port-forwards and metrics answer 503. Only the first call counts.
    pub fn set_kubelet(&self, kubelet: Arc<dyn Kubelet>) {
        if !self.api.connect(kubelet) {
            tracing::warn!("a node agent is connected already; the new one is ignored");
        }
    }

    /// From now on there is the test-only API of faults at `/sandbox/faults`; it takes [`sandbox_contract::Fault`]s.
    pub fn allow_faults(&self) {
        let _ = self.api.faults.set(Arc::new(Faults::new()));
    }

    /// Serves HTTP/1.1 and HTTP/2 over TLS until `shutdown`; then watches end at once and other requests soon after.
    ///
    /// # Errors
    /// When the TLS configuration is refused.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Tls,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let closing = self.api.open();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls.into_config()?));
        let mut listener = Listener::new(listener, Room::new(STRANGERS));
        let connections = TaskTracker::new();
        let mut memory = Reclaim::default();
        let mut quiet = tokio::time::interval(RECLAIM_EVERY);
        loop {
            memory.look(connections.len());
            let (stream, _, place) = tokio::select! {
                () = shutdown.cancelled() => break,
                _ = quiet.tick() => continue,
                accepted = listener.accept() => accepted,
            };
            let (acceptor, api, shutdown) = (acceptor.clone(), self.api.clone(), shutdown.clone());
            connections.spawn(async move {
                if let Err(error) = connection(stream, place, acceptor, api, shutdown).await {
                    tracing::debug!("connection ended: {error:#}");
                }
            });
        }
        drop(listener);
        closing.cancel();
        connections.close();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::debug!("connections still open after {DRAIN:?}; dropping them");
        }
        Ok(())
    }
}

async fn connection(
    stream: TcpStream,
    place: Arc<Connection>,
    acceptor: tokio_rustls::TlsAcceptor,
    api: Arc<Api>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let over = place.over(LIMITS);
    tokio::pin!(over);
    let stream = tokio::select! {
        accepted = acceptor.accept(stream) => accepted.context("TLS handshake failed")?,
        over = &mut over => anyhow::bail!("no TLS handshake: {over:?}"),
    };
    let refused = CancellationToken::new();
    let service = {
        let (place, refused) = (Arc::clone(&place), refused.clone());
        hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let (api, refused) = (api.clone(), refused.clone());
            let known = api.authorized(request.headers());
            if known {
                place.trust();
            }
            let under_way = known.then(|| place.begin());
            async move {
                let response = if known {
                    pass(api, request.map(Body::new), From::Socket).await
                } else {
                    // Each try costs its client a connection.
                    refused.cancel();
                    rest::discard(request.into_body());
                    unauthorized()
                };
                Ok::<_, Infallible>(response.map(|body| Held::new(body, under_way)))
            }
        })
    };
    let builder = builder();
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let mut is_lost = false;
    tokio::select! {
        result = serving.as_mut() => return result.map_err(unserved),
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            return serving.await.map_err(unserved);
        }
        over = &mut over => {
            anyhow::ensure!(over != Over::NoRoom, "closed for a new connection");
            tracing::debug!("closing a connection: {over:?}");
            is_lost = true;
        }
        () = refused.cancelled() => {}
    }
    serving.as_mut().graceful_shutdown();
    tokio::select! {
        ended = tokio::time::timeout(LAST_WORDS, serving) => {
            ended.context("the client does not let go")?.map_err(unserved)
        }
        over = &mut over, if !is_lost => anyhow::bail!("closed: {over:?}"),
    }
}

fn unserved(error: Box<dyn std::error::Error + Send + Sync>) -> anyhow::Error {
    anyhow::Error::from_boxed(error).context("serving the connection")
}

/// HTTP/1.1 and HTTP/2, with buffers that many clients at once can't fill the memory with.
fn builder() -> hyper_util::server::conn::auto::Builder<TokioExecutor> {
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // How long a client may take for a request, its connection says.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_send_buf_size(BUFFER_BYTES)
        .max_header_list_size(HEADER_BYTES)
        .keep_alive_interval(PING_EVERY);
    builder
}

fn unauthorized() -> Response<Body> {
    let mut response = ApiError::new(401, "Unauthorized", "Unauthorized").into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
    response
}

/// Where a request came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// Over TLS: the tool, kubectl, the ingress controller.
    Socket,
    /// From a part of the sandbox in this process.
    Inside,
}

/// Every request passes here, wherever it came from; those from outside meet the faults in force.
fn pass(api: Arc<Api>, request: Request<Body>, from: From) -> BoxFuture<'static, Response<Body>> {
    Box::pin(async move {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answered = match api.faults.get().filter(|_| from == From::Socket) {
            Some(faults) if path == rest::faults::PATH => rest::faults::answer(&api, faults, request).await,
            Some(faults) => {
                let asked = Asked::of(&request);
                match faults.meet(&asked).await {
                    Some(response) => Ok(response),
                    None => {
                        rest::handle(&api, request).await.map(|response| faults.on_watch(asked, response))
                    }
                }
            }
            None => rest::handle(&api, request).await,
        };
        let response = answered.unwrap_or_else(ApiError::into_response);
        tracing::debug!(%method, path, status = response.status().as_u16(), "request");
        response
    })
}
