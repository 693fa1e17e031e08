//! The daemon: a cluster in a folder, which says when it is ready, and ends with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use kube::config::Kubeconfig;
use leash::Leash;
use sandbox_node::Tuning;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::addons;
use crate::assembly::{self, Plan};
use crate::error::{Doing as _, Error, Result};
use crate::home::{Holder, Home, Lock};
use crate::lifecycle::{self, Info};

/// How often the daemon looks whether its folder is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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
    /// Whether there is the test-only API of faults; see [`sandbox_contract::Fault`].
    pub faults: bool,
}

/// [`run`] until SIGTERM or SIGINT, with diagnostics on standard error (filtered by `RUST_LOG`).
///
/// # Errors
/// Those of [`run`].
pub async fn serve(options: Options) -> Result<()> {
    log_to_stderr();
    let shutdown = on_signals()?;
    run(options, shutdown).await?;
    tracing::info!("ended");
    Ok(())
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

async fn cluster(
    options: &Options,
    killed: bool,
    lock: &mut Lock,
    shutdown: &CancellationToken,
) -> Result<()> {
    let started = jiff::Timestamp::now();
    let home = &options.home;
    let descriptors = sandbox_connections::raise_descriptor_limit();
    tracing::debug!("up to {descriptors} open files");
    // A predecessor that was killed: the leash may still be ending its ingress.
    let patience = if killed { Duration::from_secs(3) } else { Duration::ZERO };
    let entry = entry_address(options.ingress_port, patience).await?;
    let mut ingress_argv = options.ingress_argv.clone();
    if options.faults {
        ingress_argv.push("--faults".into());
    }
    let plan = Plan {
        context: options.context.clone(),
        node_dir: home.node(),
        kubeconfig: home.kubeconfig(),
        images: home.images()?,
        builtin: BTreeMap::from([(addons::INGRESS_IMAGE.to_owned(), ingress_argv)]),
        memory_bytes: machine::memory_bytes().doing("reading this machine's memory")?,
        cpus: machine::cpus(),
        tuning: Tuning::default(),
        leash: Leash::start(&options.leash_argv).doing("starting the leash")?,
        faults: options.faults,
    };
    let (access, mut parts) = assembly::start(plan).await?;
    let info = Info {
        pid: i32::try_from(std::process::id()).doing("reading our own pid")?,
        started,
        api: access.api.clone(),
        entry: format!("http://{entry}"),
        kubeconfig: home.kubeconfig(),
        context: options.context.clone(),
        build_id: lifecycle::build_id()?,
        program: std::env::current_exe().doing("finding this program's own file")?,
    };
    let living = async {
        assembly::ready(&access.client).await?;
        publish(home, &info, &access.kubeconfig)?;
        let took = jiff::Timestamp::now().duration_since(started);
        tracing::info!("ready after {} ms: API {}, entry {}", took.as_millis(), info.api, info.entry);
        keep(home, lock, &info, &access.kubeconfig, &access.token).await
    };
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        failed = living => failed,
        error = parts.failed() => Err(error),
    };
    let withdrawn = withdraw(home, lock);
    parts.end().await;
    outcome.and(withdrawn)
}

/// Sees to it that the folder says what runs: writes again what was deleted or damaged. Ends when the lock itself is
/// gone, for then nobody could find this sandbox, and another one could start in its place.
async fn keep(home: &Home, lock: &mut Lock, info: &Info, kubeconfig: &str, token: &str) -> Result<()> {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        if !lock.is_in(home) {
            return Err(Error::FolderGone { home: home.dir().to_owned() });
        }
        let says =
            |path: &Path, what: &dyn Fn(&[u8]) -> bool| std::fs::read(path).is_ok_and(|text| what(&text));
        let is_info = |text: &[u8]| serde_json::from_slice(text).is_ok_and(|found: Info| found == *info);
        let is_intact = says(&home.info(), &is_info)
            // The user's kubectl may have chosen another namespace in it.
            && says(&home.kubeconfig(), &|text| {
                let text = String::from_utf8_lossy(text);
                Kubeconfig::from_yaml(&text).is_ok() && text.contains(token) && text.contains(&info.api)
            });
        let restored = lock.restore().doing("writing the lock").and_then(|()| match is_intact {
            true => Ok(()),
            false => publish(home, info, kubeconfig),
        });
        if let Err(error) = restored {
            tracing::warn!("the folder does not say what runs: {}", error.chain());
        } else if !is_intact {
            tracing::warn!(
                "files of {} were deleted or damaged, and are written again",
                home.dir().display()
            );
        }
    }
}

/// The address of the entry, if it can be had.
async fn entry_address(port: u16, patience: Duration) -> Result<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match lifecycle::free(address, patience).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(Error::PortInUse { port }),
        found => found.doing_with(|| {
            format!(
                "listening on port {port} of 127.0.0.1 for the ingress; try another (0 takes any free one)"
            )
        }),
    }
}

/// Says that the sandbox is ready, `sandbox.json` last.
fn publish(home: &Home, info: &Info, kubeconfig: &str) -> Result<()> {
    home.write(&home.kubeconfig(), kubeconfig.as_bytes())?;
    let info_json = serde_json::to_vec_pretty(info).doing("writing sandbox.json")?;
    home.write(&home.info(), &info_json)
}

/// Diagnostics of this process: `RUST_LOG`, or what is worth knowing, which clients' mistakes in HTTP/2 are not: a line
/// for each would let anyone fill the disk. Does nothing where a subscriber is installed.
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
    let mut terminate = signal(SignalKind::terminate()).doing("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).doing("listening for SIGINT")?;
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
