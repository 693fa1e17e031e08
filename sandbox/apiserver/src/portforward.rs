//! Port-forwarding to pods, in the three ways clients ask for it: SPDY over an upgraded connection (older kubectl),
//! SPDY inside a WebSocket (newer kubectl), and WebSocket channels (kube-rs).

mod spdy;
mod spdy_frames;
mod websocket;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts as _;
use axum::extract::ws::WebSocketUpgrade;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::request::{Query, Target};
use crate::state::Api;
use crate::status::ApiError;
use sandbox_contract::Kubelet;

/// The protocol inside SPDY.
const PORT_FORWARD: &str = "portforward.k8s.io";
/// SPDY inside a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// One byte of channel number before each message.
const CHANNELS: &str = "v4.channel.k8s.io";

/// What is on its way at once; a slow side holds up the other instead of filling memory.
const QUEUE: usize = 64;
const CHUNK_BYTES: usize = 32 * 1024;

/// Dials the ports of one pod.
#[derive(Clone)]
pub(crate) struct Dialer {
    kubelet: Arc<dyn Kubelet>,
    namespace: String,
    pod: String,
}

impl Dialer {
    /// A connection to the port, or the reason there is none, worded for the person who forwards.
    async fn dial(&self, port: u16) -> Result<TcpStream, String> {
        match self.kubelet.connect(&self.namespace, &self.pod, port).await {
            Ok(stream) => {
                // Without this, small answers wait for acknowledgements; failing to set it harms nothing else.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Err(error) => Err(format!(
                "error forwarding port {port} to pod {}/{}: dial tcp4 127.0.0.1:{port}: connect: {error}",
                self.namespace, self.pod
            )),
        }
    }

    /// Carries bytes between a client and a port, until the pod has no more of them or nobody takes them. `wrap` makes
    /// of the pod's bytes what the client is sent.
    async fn forward<T>(
        &self,
        port: u16,
        mut from_client: mpsc::Receiver<Bytes>,
        to_client: &mpsc::Sender<T>,
        wrap: impl Fn(Bytes) -> T,
    ) -> Result<(), String> {
        let (mut from_pod, mut to_pod) = self.dial(port).await?.into_split();
        let up = async move {
            while let Some(bytes) = from_client.recv().await {
                if to_pod.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            // The client has sent all; the pod may still answer.
            let _ = to_pod.shutdown().await;
        };
        let down = async {
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let read = from_pod.read(&mut buffer).await;
                let read = read
                    .map_err(|error| format!("error forwarding port {port} to pod {}: {error}", self.pod))?;
                let bytes = Bytes::copy_from_slice(&buffer[..read]);
                if read == 0 || to_client.send(wrap(bytes)).await.is_err() {
                    return Ok(());
                }
            }
        };
        tokio::pin!(up, down);
        tokio::select! {
            result = &mut down => result,
            () = &mut up => down.await,
        }
    }
}

pub(crate) async fn answer(
    api: &Arc<Api>,
    target: &Target,
    query: &Query,
    request: &mut Request<Body>,
) -> Result<Response<Body>, ApiError> {
    if request.method() != Method::GET && request.method() != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    let kind = target.kind().ok_or_else(ApiError::no_such_path)?;
    let name = target.name.clone().unwrap_or_default();
    let pod =
        api.store.get(kind, &target.namespace, &name).ok_or_else(|| ApiError::not_found(kind, &name))?;
    if pod["spec"]["nodeName"].as_str().unwrap_or("").is_empty() {
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let dialer = Dialer { kubelet: api.kubelet()?, namespace: target.namespace.clone(), pod: name };
    let closing = api.closing();
    let upgrade = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if upgrade.eq_ignore_ascii_case("websocket") {
        return over_websocket(dialer, closing, query, std::mem::take(request)).await;
    }
    if upgrade.eq_ignore_ascii_case("SPDY/3.1") {
        return over_spdy(dialer, closing, request);
    }
    Err(ApiError::bad_request("Upgrade request required"))
}

fn over_spdy(
    dialer: Dialer,
    closing: CancellationToken,
    request: &mut Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let protocols = request.headers().get_all("X-Stream-Protocol-Version");
    let offered: Vec<&str> = protocols
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .collect();
    if !offered.is_empty() && !offered.contains(&PORT_FORWARD) {
        let why = format!(
            "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts \
             [{PORT_FORWARD}]"
        );
        return Err(ApiError::new(403, "Forbidden", why));
    }
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(closing.run_until_cancelled_owned(async move {
        match upgraded.await {
            Ok(connection) => spdy::serve(TokioIo::new(connection), dialer).await,
            Err(error) => tracing::debug!("port-forward was not upgraded: {error}"),
        }
    }));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert("X-Stream-Protocol-Version", HeaderValue::from_static(PORT_FORWARD));
    Ok(response)
}

async fn over_websocket(
    dialer: Dialer,
    closing: CancellationToken,
    query: &Query,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let ports: Vec<u16> = query
        .all("ports")
        .iter()
        .flat_map(|list| list.split(','))
        .map(|port| {
            port.parse().map_err(|_| {
                ApiError::bad_request(format!("query parameter \"ports\": invalid port {port:?}"))
            })
        })
        .collect::<Result<_, _>>()?;
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|error| ApiError::bad_request(format!("unable to upgrade: {error}")))?;
    let upgrade = upgrade.protocols([TUNNEL, CHANNELS]);
    let tunnel = upgrade.selected_protocol().is_some_and(|protocol| protocol == TUNNEL);
    if !tunnel && ports.is_empty() {
        return Err(ApiError::bad_request("query parameter \"ports\" is required"));
    }
    Ok(upgrade.on_upgrade(move |socket| async move {
        closing
            .run_until_cancelled_owned(async move {
                if tunnel {
                    websocket::tunnel(socket, dialer).await;
                } else {
                    websocket::channels(socket, dialer, &ports).await;
                }
            })
            .await;
    }))
}
