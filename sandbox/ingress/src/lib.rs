//! The sandbox's ingress controller: routes by host and path, holds the leader lease, logs as ingress-nginx does.
//!
//! It runs as a pod. What it does as ingress-nginx: routing by the rules of the Ingress API, what its proxy does,
//! health on port 10254, the admission webhook on 8443 (plain HTTP here: the sandbox has no certificates inside),
//! the lease and the Ingress status. What it does not: TLS, upgrades such as WebSocket, and every annotation but
//! the proxy's body size, timeouts and request buffering.

mod admission;
mod faults;
mod lease;
mod server;
mod status;
mod sync;
mod translate;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use sandbox_proxy::{Clients, Proxy};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use lease::Candidate;
pub use sandbox_proxy::AccessLog;

/// The controller name that an IngressClass must name.
pub const CONTROLLER: &str = "k8s.io/ingress-nginx";
/// The lease's name, as ingress-nginx's.
pub const LEASE: &str = "ingress-nginx-leader";
/// Requests are taken here, at the pod's address.
pub const POD_HTTP_PORT: u16 = 8080;
/// Health is served here, at the pod's address.
pub const HEALTH_PORT: u16 = 10254;
/// The admission webhook is served here, at the pod's address.
pub const ADMISSION_PORT: u16 = 8443;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The entry: where requests come in, e.g. 127.0.0.1:8080.
    pub http_listen: SocketAddr,
    /// Where requests are taken besides: the pod's own address, as its Service has it.
    pub pod_listen: SocketAddr,
    /// Where `/healthz` is served.
    pub health_listen: SocketAddr,
    /// Where the admission webhook is served.
    pub admission_listen: SocketAddr,
    /// The controller name of the IngressClasses to serve.
    pub controller_class: String,
    /// The pod's name: who holds the lease.
    pub pod_name: String,
    /// The pod's namespace: where the lease is.
    pub pod_namespace: String,
    /// The address that is written into the status of Ingresses.
    pub publish_address: String,
    /// How long requests under way may take after the end was asked for.
    pub drain: Duration,
    /// Whether the ConfigMap `sandbox-faults` of its namespace may break the proxy, for tests.
    pub faults: bool,
}

impl Options {
    /// Options for a pod: `POD_NAME`, `POD_NAMESPACE` and `HOST` (the pod's address) from the environment.
    ///
    /// # Errors
    /// If one of them is missing or `HOST` is no address.
    pub fn from_env(http_listen: SocketAddr) -> anyhow::Result<Options> {
        let variable =
            |name: &str| std::env::var(name).with_context(|| format!("reading the variable {name}"));
        let host: IpAddr = match std::env::var("HOST") {
            Ok(host) => host.parse().with_context(|| format!("reading HOST={host:?} as an address"))?,
            Err(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let listen = |port| SocketAddr::new(host, port);
        Ok(Options {
            http_listen,
            pod_listen: listen(POD_HTTP_PORT),
            health_listen: listen(HEALTH_PORT),
            admission_listen: listen(ADMISSION_PORT),
            controller_class: CONTROLLER.into(),
            pod_name: variable("POD_NAME")?,
            pod_namespace: variable("POD_NAMESPACE")?,
            publish_address: http_listen.ip().to_string(),
            drain: Duration::from_secs(10),
            faults: false,
        })
    }
}

/// Runs the controller until `shutdown`: then it says that it is unhealthy, takes no new connections and finishes what
/// is under way within [`Options::drain`].
///
/// # Errors
/// If an address can't be bound.
pub async fn run(
    client: Client,
    options: Options,
    log: AccessLog,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    // Before the first sync requests are taken and answered 404, as nginx does before its first reload.
    let entry = bind(options.http_listen, "the entry").await?;
    let inside = bind(options.pod_listen, "the pod's port").await?;
    let health = bind(options.health_listen, "health").await?;
    let admission = bind(options.admission_listen, "the admission webhook").await?;
    tracing::info!("entry http://{}", options.http_listen);

    let watches = sync::watch(&client);
    let known = watches.known();
    let (synced, routes) = watch::channel(None);
    let (lead, leading) = watch::channel(false);
    let (broken, breaks) = watch::channel(None);
    let (pace, paced) = watch::channel(Duration::ZERO);
    let proxy = Proxy::new(routes.clone(), log.clone());
    let clients = Clients::of_nginx();

    let class = options.controller_class.as_str();
    let candidate =
        Candidate::new(client.clone(), &options.pod_namespace, LEASE, &options.pod_name, lease::DURATION);
    let background = async {
        tokio::join!(
            watches.follow(class, &synced, paced),
            candidate.run(lease::RETRY, &lead),
            faults::follow(options.faults, client.clone(), &options.pod_namespace, &broken, &pace, &proxy),
            status::publish(client, class, &options.publish_address, known.clone(), leading, routes.clone()),
            server::serve_health(health, routes.clone(), shutdown.clone()),
            server::serve_admission(admission, known.clone(), class),
        )
    };
    let foreground = async {
        tokio::join!(
            faults::serve(entry, clients.clone(), proxy.clone(), shutdown.clone(), options.drain, breaks),
            sandbox_proxy::serve(inside, clients.clone(), proxy.clone(), shutdown.clone(), options.drain),
        )
    };
    tokio::select! {
        _ = foreground => {}
        _ = background => anyhow::bail!("the watches ended"),
    }
    log.flush();
    Ok(())
}

/// Binds; for a short while also against a predecessor that has not quite let go.
async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    let patience = std::time::Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind(address).await {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && std::time::Instant::now() < patience =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            bound => return bound.with_context(|| format!("listening on {address} for {what}")),
        }
    }
}
