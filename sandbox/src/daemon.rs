//! The daemon: assembles the cluster, says when it is ready, and takes it apart again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Node;
use kube::config::Kubeconfig;
use kube::{Api, Client};
use leash::Leash;
use sandbox_apiserver::{ApiServer, Tls};
use sandbox_node::{NodeAgent, NodeConfig};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::addons;
use crate::home::{Holder, Home, Lock};
use crate::kubelet::LocalNode;
use crate::lifecycle::{self, Info};

/// The one node.
pub const NODE_NAME: &str = "sandbox";
/// From the start until the node is Ready.
const READY: Duration = Duration::from_secs(20);
/// What pods get to end in; the leash ends those that take longer.
const PODS_END: Duration = Duration::from_secs(6);
/// How often the daemon looks whether its folder is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What the rest gets.
const PARTS_END: Duration = Duration::from_secs(3);

/// How to run a sandbox.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its folder.
    pub home: Home,
    /// Name of the context in its kubeconfig, e.g. `sandbox-minikube`.
    pub context: String,
    /// Loopback port at which the ingress takes requests; 0 picks a free one.
    pub ingress_port: u16,
    /// Command line that runs [`crate::ingress_process`] with what is appended to it.
    pub ingress_argv: Vec<OsString>,
    /// Command line that runs [`leash::watch_stdin`].
    pub leash_argv: Vec<OsString>,
    /// Whether there is the test-only API of faults; see `faults.rs` of the API server.
    pub faults: bool,
}

/// [`run`] until SIGTERM or SIGINT, with diagnostics on standard error (filtered by `RUST_LOG`).
///
/// # Errors
/// Those of [`run`]; they are logged, too.
pub async fn serve(options: Options) -> Result<()> {
    log_to_stderr();
    let shutdown = on_signals()?;
    let served = run(options, shutdown).await;
    match &served {
        Ok(()) => tracing::info!("ended"),
        Err(e) => tracing::error!("ended: {e:#}"),
    }
    served
}

/// Runs a sandbox until `shutdown`. It is [`State::Running`](crate::State::Running) once the API server answers and
/// the node is Ready.
///
/// # Errors
/// If one runs already in this folder, the ingress port is taken, or a part of it fails.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<()> {
    let home = &options.home;
    home.create()?;
    let killed = matches!(home.holder()?, Holder::Dead(_));
    let mut lock = Lock::take(home).await?;
    home.withdraw()?;
    home.clear_node()?;
    let outcome = cluster(&options, killed, &mut lock, &shutdown).await;
    let withdrawn = withdraw(home, &lock);
    lock.release();
    outcome.and(withdrawn)
}

/// Takes back that the sandbox is ready, unless the folder is another one's by now.
fn withdraw(home: &Home, lock: &Lock) -> Result<()> {
    if lock.is_in(home) { home.withdraw() } else { Ok(()) }
}

/// The parts, in the order in which they are stopped.
#[derive(Default)]
struct Stop {
    controllers: CancellationToken,
    node: CancellationToken,
    api: CancellationToken,
}

async fn cluster(
    options: &Options,
    killed: bool,
    lock: &mut Lock,
    shutdown: &CancellationToken,
) -> Result<()> {
    let started = jiff::Timestamp::now();
    let descriptors = sandbox_connections::raise_descriptor_limit();
    tracing::debug!("up to {descriptors} open files");
    // A predecessor that was killed: the leash may still be ending its ingress.
    let patience = if killed { Duration::from_secs(3) } else { Duration::ZERO };
    let entry = entry_address(options.ingress_port, patience).await?;
    let leash = Leash::start(&options.leash_argv).context("starting the leash")?;

    let token = random_token()?;
    let (tls, ca) = Tls::generate().context("making a certificate for the API server")?;
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listening for the API server")?;
    let api = format!("https://{}", listener.local_addr().context("looking up the API server's address")?);
    let server = ApiServer::new(token.clone());
    let client = server.client();
    let mut ingress_argv = options.ingress_argv.clone();
    if options.faults {
        server.allow_faults();
        ingress_argv.push("--faults".into());
    }

    let stop = Stop::default();
    let mut parts: JoinSet<(&'static str, Result<()>)> = JoinSet::new();
    let serving = server.clone().serve(listener, tls, stop.api.clone());
    parts.spawn(async move { ("the API server", serving.await) });
    let controlling = sandbox_controllers::run(client.clone(), stop.controllers.clone());
    parts.spawn(async move { ("the controllers", controlling.await) });

    let config = NodeConfig {
        node_name: NODE_NAME.into(),
        dir: options.home.node(),
        images: options.home.images().context("opening the image store")?,
        builtin: BTreeMap::from([(addons::INGRESS_IMAGE.to_string(), ingress_argv)]),
        kubeconfig: options.home.kubeconfig(),
        memory_bytes: machine::memory_bytes()?,
        cpus: machine::cpus(),
        leash,
    };
    let node = NodeAgent::start(client.clone(), config, stop.node.clone())
        .await
        .context("starting the node agent")?;
    server.set_kubelet(Arc::new(LocalNode(node.clone())));

    let info = Info {
        pid: i32::try_from(std::process::id()).context("reading our own pid")?,
        started,
        api,
        entry: format!("http://{entry}"),
        kubeconfig: options.home.kubeconfig(),
        context: options.context.clone(),
        build_id: lifecycle::build_id()?,
        program: std::env::current_exe().context("find this program's own file")?,
    };
    let living = async {
        timeout(READY, ready(&client))
            .await
            .map_err(|_| anyhow!("the node did not become Ready in {READY:?}"))??;
        let kubeconfig = kubeconfig(&info, &ca, &token)?;
        publish(&options.home, &info, &kubeconfig)?;
        let took = jiff::Timestamp::now().duration_since(started);
        tracing::info!("ready after {} ms: API {}, entry {}", took.as_millis(), info.api, info.entry);
        keep(&options.home, lock, &info, &kubeconfig, &token).await
    };
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        failed = living => failed,
        ended = parts.join_next() => Err(why(ended)),
    };

    // First nobody may replace the pods that end, then they end, and who looks at them is last.
    let withdrawn = withdraw(&options.home, lock);
    stop.controllers.cancel();
    stop.node.cancel();
    if timeout(PODS_END, node.stopped()).await.is_err() {
        tracing::warn!("pods still run after {PODS_END:?}; the leash ends them");
    }
    stop.api.cancel();
    let rest = async { while parts.join_next().await.is_some() {} };
    if timeout(PARTS_END, rest).await.is_err() {
        tracing::warn!("not all parts ended within {PARTS_END:?}");
    }
    outcome.and(withdrawn)
}

/// Sees to it that the folder says what runs: writes again what was deleted or damaged. Ends when the lock itself is gone,
/// for then nobody could find this sandbox, and another one could start in its place.
async fn keep(home: &Home, lock: &mut Lock, info: &Info, kubeconfig: &str, token: &str) -> Result<()> {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        if !lock.is_in(home) {
            bail!("its folder {} was deleted, or its lock replaced", home.dir().display());
        }
        let says =
            |path: &Path, what: &dyn Fn(&[u8]) -> bool| std::fs::read(path).is_ok_and(|text| what(&text));
        let is_intact = says(&home.info(), &|text| serde_json::from_slice(text).is_ok_and(|found: Info| found == *info))
            // The user's kubectl may have chosen another namespace in it.
            && says(&home.kubeconfig(), &|text| {
                let text = String::from_utf8_lossy(text);
                Kubeconfig::from_yaml(&text).is_ok() && text.contains(token) && text.contains(&info.api)
            });
        let restored = lock.restore().context("writing the lock").and_then(|()| match is_intact {
            true => Ok(()),
            false => publish(home, info, kubeconfig),
        });
        if let Err(error) = restored {
            tracing::warn!("the folder does not say what runs: {error:#}");
        } else if !is_intact {
            tracing::warn!(
                "files of {} were deleted or damaged, and are written again",
                home.dir().display()
            );
        }
    }
}

/// Why a part that should run for ever does not.
fn why(ended: Option<Result<(&'static str, Result<()>), tokio::task::JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok((part, Ok(())))) => anyhow!("{part} ended"),
        Some(Ok((part, Err(e)))) => e.context(format!("{part} failed")),
        Some(Err(panic)) => anyhow::Error::new(panic).context("a part of the sandbox panicked"),
        None => anyhow!("every part of the sandbox ended"),
    }
}

/// The address of the entry, if it can be had.
async fn entry_address(port: u16, patience: Duration) -> Result<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match lifecycle::free(address, patience).await {
        Ok(address) => Ok(address),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "port {port} of 127.0.0.1, at which the ingress is to take requests, is in use; stop what listens there, \
             or choose another with --port (0 takes any free one)"
        ),
        Err(e) => Err(e).with_context(|| {
            format!("listening on port {port} of 127.0.0.1 for the ingress; choose another with --port")
        }),
    }
}

/// Waits until the API server says that it is ready, and the node is.
async fn ready(client: &Client) -> Result<()> {
    let request = http::Request::get("/readyz").body(Vec::new()).context("asking for /readyz")?;
    client.request_text(request).await.context("the API server is not ready")?;
    let is_ready = |node: Option<&Node>| {
        let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    };
    let nodes: Api<Node> = Api::all(client.clone());
    kube::runtime::wait::await_condition(nodes, NODE_NAME, is_ready).await.context("waiting for the node")?;
    Ok(())
}

/// Says that the sandbox is ready, `sandbox.json` last.
fn publish(home: &Home, info: &Info, kubeconfig: &str) -> Result<()> {
    home.write(&home.kubeconfig(), kubeconfig.as_bytes())?;
    let info_json = serde_json::to_vec_pretty(info).context("writing sandbox.json")?;
    home.write(&home.info(), &info_json)
}

fn kubeconfig(info: &Info, ca_pem: &str, token: &str) -> Result<String> {
    let name = info.context.as_str();
    let ca = k8s_openapi::ByteString(ca_pem.as_bytes().to_vec());
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": info.api, "certificate-authority-data": ca}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
    });
    serde_yaml::to_string(&kubeconfig).context("writing the kubeconfig")
}

/// 256 random bits in hexadecimal.
fn random_token() -> Result<String> {
    let mut bytes = [0; 32];
    let provider = rustls::crypto::ring::default_provider();
    provider.secure_random.fill(&mut bytes).map_err(|_| anyhow!("the system has no randomness"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Diagnostics of this process: `RUST_LOG`, or what is worth knowing, which clients' mistakes in HTTP/2 are not: a line for
/// each would let anyone fill the disk. Does nothing where a subscriber is installed.
pub(crate) fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,h2=error"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would tell of a log that can't be written, as on a full disk, by a macro that panics then.
        .log_internal_errors(false)
        .with_ansi(false)
        .with_target(false)
        .try_init();
}

/// A token that SIGTERM and SIGINT cancel.
pub(crate) fn on_signals() -> Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let shutdown = CancellationToken::new();
    let cancelled = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(shutdown)
}
