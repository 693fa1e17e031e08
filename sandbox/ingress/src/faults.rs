//! Faults on purpose, for tests: the entry breaks as the ConfigMap `sandbox-faults` of the controller's namespace says
//! under `proxy`: `bad-gateway`, `close` or `refuse`; `latency-ms` is what each request takes longer. Followed only
//! where [`crate::Options::faults`] allows it.
//!
//! `sync-seconds` is no fault and needs no permission: routes then follow the cluster no more often than that.
//! ingress-nginx syncs each 3.3 s at most (`--sync-rate-limit`, 0.3 a second); here the default is at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use sandbox_proxy::{Clients, Proxy};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const CONFIG: &str = "sandbox-faults";
const SLOWEST_SYNC: Duration = Duration::from_secs(60);

/// How the entry is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// Every request is answered 502.
    BadGateway,
    /// Connections are taken and dropped.
    Close,
    /// Nothing listens.
    Refuse,
}

/// Says in `broken`, `pace` and `proxy` what the ConfigMap says. Never ends.
pub(crate) async fn follow(
    allowed: bool,
    client: Client,
    namespace: &str,
    broken: &watch::Sender<Option<Break>>,
    pace: &watch::Sender<Duration>,
    proxy: &Proxy,
) {
    let api: Api<DynamicObject> =
        Api::namespaced_with(client, namespace, &ApiResource::erase::<ConfigMap>(&()));
    let mut seen = watcher::watch_object(api, CONFIG).default_backoff().boxed();
    loop {
        match seen.try_next().await {
            Ok(Some(config)) => {
                let config = config.map(|config| config.data).unwrap_or_default();
                let data = |key| config.pointer("/data")?.get(key)?.as_str();
                let seconds = data("sync-seconds").and_then(|seconds| seconds.parse().ok());
                let every = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                pace.send_replace(every.unwrap_or_default().min(SLOWEST_SYNC));
                let latency = data("latency-ms").filter(|_| allowed).and_then(|ms| ms.parse().ok());
                proxy.latency_ms.store(latency.unwrap_or(0), Ordering::Relaxed);
                broken.send_replace(match data("proxy").filter(|_| allowed) {
                    Some("bad-gateway") => Some(Break::BadGateway),
                    Some("close") => Some(Break::Close),
                    Some("refuse") => Some(Break::Refuse),
                    _ => None,
                });
            }
            Ok(None) => return std::future::pending().await,
            Err(error) => tracing::warn!("watch of {CONFIG}: {error}"),
        }
    }
}

/// [`serve_proxy`] until `shutdown`, broken as `breaks` says.
pub(crate) async fn serve(
    listener: TcpListener,
    clients: Clients,
    proxy: Arc<Proxy>,
    shutdown: CancellationToken,
    drain: Duration,
    mut breaks: watch::Receiver<Option<Break>>,
) {
    let Ok(address) = listener.local_addr() else { return };
    let mut listener = Some(listener);
    while !shutdown.is_cancelled() {
        let broken = *breaks.borrow_and_update();
        proxy.bad_gateway.store(broken == Some(Break::BadGateway), Ordering::Relaxed);
        let until = shutdown.child_token();
        let change = async {
            // Without the sender nothing changes any more.
            while breaks.changed().await.is_ok() {
                if *breaks.borrow() != broken {
                    until.cancel();
                }
            }
            std::future::pending::<()>().await;
        };
        let serving = async {
            if broken == Some(Break::Refuse) {
                listener = None;
                return until.cancelled().await;
            }
            let open = match listener.take() {
                Some(open) => open,
                None => match crate::bind(address, "the entry").await {
                    Ok(open) => open,
                    Err(error) => return tracing::warn!("{error:#}"),
                },
            };
            if broken == Some(Break::Close) {
                let taking = async {
                    while let Ok(taken) = open.accept().await {
                        drop(taken);
                    }
                };
                return until.run_until_cancelled(taking).await.unwrap_or_default();
            }
            sandbox_proxy::serve(open, clients.clone(), proxy.clone(), until.clone(), drain).await;
        };
        tokio::select! {
            () = serving => {}
            () = change => {}
        }
    }
}
