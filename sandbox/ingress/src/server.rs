//! The servers inside: health, and the admission webhook.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sandbox_connections::{Held, Listener, Room, Watched};
use sandbox_proxy::route::Table;
use sandbox_proxy::{LIMITS, SEND_TIMEOUT, server};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::sync::Known;

/// The health and webhook servers answer at once.
const INSIDE_CONNECTIONS: usize = 256;
/// Largest AdmissionReview: what the API server itself would take.
const REVIEW_BYTES: usize = 3 << 20;

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
                Err(error) => return plain(StatusCode::BAD_REQUEST, &format!("reading the body: {error}")),
            };
            match admission::review(&body, &known.objects(), &controller) {
                Ok(review) => {
                    let mut response = plain(StatusCode::OK, &review.to_string());
                    let json = HeaderValue::from_static("application/json");
                    response.headers_mut().insert(header::CONTENT_TYPE, json);
                    response
                }
                Err(error) => plain(StatusCode::BAD_REQUEST, &error),
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
    let mut listener = Listener::new(listener, Room::new(INSIDE_CONNECTIONS));
    loop {
        let (stream, _, place) = listener.accept().await;
        let service = {
            let (answer, place) = (answer.clone(), Arc::clone(&place));
            service_fn(move |request| {
                let (answered, under_way) = (answer(request), place.begin());
                async move {
                    // A body that does not come is no request under way.
                    let answer = tokio::time::timeout(LIMITS.head, answered).await.map_err(|_| "too slow")?;
                    Ok::<_, &str>(answer.map(|body| Held::new(body, Some(under_way))))
                }
            })
        };
        let stream = Watched::new(stream, Arc::clone(&place), SEND_TIMEOUT);
        let connection = server().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            tokio::select! {
                _ = connection => {}
                _ = place.over(LIMITS) => {}
            }
        });
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text.to_string()));
    *response.status_mut() = status;
    response
}
