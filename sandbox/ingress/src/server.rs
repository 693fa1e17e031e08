//! The three servers: entry, health, admission webhook.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::proxy::Proxy;
use crate::route::Table;
use crate::sync::Known;

/// nginx's `keepalive_timeout` in ingress-nginx: how long a client's idle connection is kept.
const CLIENT_IDLE: Duration = Duration::from_secs(75);
/// Largest AdmissionReview: what the API server itself would take.
const REVIEW_BYTES: usize = 3 << 20;

/// Serves the proxy until `shutdown`, then lets requests under way finish within `drain`.
pub async fn serve_proxy(
    listener: TcpListener,
    proxy: Arc<Proxy>,
    shutdown: CancellationToken,
    drain: Duration,
) {
    let connections = GracefulShutdown::new();
    let mut sweep = tokio::time::interval(Duration::from_secs(5));
    loop {
        let (stream, remote) = tokio::select! {
            () = shutdown.cancelled() => break,
            _ = sweep.tick() => {
                proxy.sweep();
                continue;
            }
            accepted = accept(&listener) => accepted,
        };
        let proxy = Arc::clone(&proxy);
        let service = service_fn(move |request| {
            let proxy = Arc::clone(&proxy);
            async move { proxy.handle(remote, request).await }
        });
        let connection = connections.watch(server().serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!("connection from {remote}: {e}");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, connections.shutdown()).await.is_err() {
        tracing::warn!("requests still under way after {drain:?} are cut off");
    }
}

/// `GET /healthz`: 200 once the routes were synced, 500 before that and while draining.
pub(crate) async fn serve_health(
    listener: TcpListener,
    routes: watch::Receiver<Option<Arc<Table>>>,
    shutdown: CancellationToken,
) {
    serve(listener, move |request: Request<Incoming>| {
        let healthy = routes.borrow().is_some() && !shutdown.is_cancelled();
        async move {
            match request.uri().path() {
                "/healthz" if healthy => plain(StatusCode::OK, "ok"),
                "/healthz" => plain(StatusCode::INTERNAL_SERVER_ERROR, "routes are not synced, or draining"),
                _ => plain(StatusCode::NOT_FOUND, "not found"),
            }
        }
    })
    .await;
}

/// The admission webhook, at any path.
pub(crate) async fn serve_admission(listener: TcpListener, known: Known, controller: &str) {
    let controller: Arc<str> = controller.into();
    serve(listener, move |request: Request<Incoming>| {
        let (known, controller) = (known.clone(), Arc::clone(&controller));
        async move {
            if request.method() != Method::POST {
                return plain(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview");
            }
            let body = match Limited::new(request.into_body(), REVIEW_BYTES).collect().await {
                Ok(body) => body.to_bytes(),
                Err(e) => return plain(StatusCode::BAD_REQUEST, &format!("read the body: {e}")),
            };
            match admission::review(&body, &known.objects(), &controller) {
                Ok(review) => {
                    let mut response = plain(StatusCode::OK, &review.to_string());
                    let json = HeaderValue::from_static("application/json");
                    response.headers_mut().insert(header::CONTENT_TYPE, json);
                    response
                }
                Err(e) => plain(StatusCode::BAD_REQUEST, &e),
            }
        }
    })
    .await;
}

/// Accepts and answers for ever.
async fn serve<F, A>(listener: TcpListener, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    loop {
        let (stream, _) = accept(&listener).await;
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answered = answer(request);
            async move { Ok::<_, Infallible>(answered.await) }
        });
        tokio::spawn(server().serve_connection(TokioIo::new(stream), service));
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let _ = stream.set_nodelay(true);
                return (stream, remote);
            }
            // A client that was gone at once, or no descriptors left: neither ends the server.
            Err(e) => {
                tracing::warn!("accept: {e}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

fn server() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(CLIENT_IDLE);
    builder
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text.to_string()));
    *response.status_mut() = status;
    response
}
