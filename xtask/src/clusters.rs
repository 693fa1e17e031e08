//! The kinds of cluster. They differ in what is here and in nothing else: how to be running, how ingress and
//! metrics are switched on, how an image gets in, where the entry is, how to stop. All else is the same code
//! against the Kubernetes API. A new kind is a file beside these and an arm in each `match` below.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kube::client::retry::RetryPolicy;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::retry::Retry;

use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::image::{Digests, HOST_IS_NODE, ImageRef, Linkage, Recipe};
use crate::manifests::Manifests;
use crate::options::ClusterChoice;
use crate::owned::Watched;
use crate::pipeline::{Outcome, Running};
use crate::summary::Summary;

pub mod context;
pub mod minikube;
pub mod sandbox;

/// A kind of cluster, with what it needs to know of itself.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A minikube profile.
    Minikube(minikube::Minikube),
    /// The embedded cluster.
    Sandbox(sandbox::Sandbox),
    /// A context of the user's kubeconfig.
    Context(context::Context),
}

/// A cluster that runs.
#[derive(Clone)]
pub struct Cluster {
    /// Which kind.
    pub kind: Kind,
    /// Its kubeconfig context, the only one that is ever used.
    pub context: String,
    /// The kubeconfig that holds nothing but that context; readable by its owner alone.
    pub kubeconfig: PathBuf,
    /// A client pinned to it.
    pub client: kube::Client,
    /// Base URL of the ingress, as a client on this machine reaches it.
    pub entry: String,
    /// Where that is only a tunnel of this run's, why.
    pub tunnel: Option<String>,
    /// Whether its ingress controller is ingress-nginx, where its addons and manifests put it: that one has gates of
    /// its own, and of any other the route tells.
    pub nginx: bool,
    /// Whether it has the metrics API, or is to be given it.
    pub metrics: bool,
}

impl Cluster {
    /// Where the app is reached through its ingress, for the last JSON object of a run.
    pub fn summary(&self, manifests: &Manifests) -> Summary {
        let fields = [
            ("cluster", self.kind.name()),
            ("context", &self.context),
            ("entry", &self.entry),
            ("host", manifests.host()),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }

    /// The app of these manifests in it, for who watches it.
    pub fn watched(&self, manifests: &Manifests, namespace: &str) -> Watched {
        Watched {
            client: self.client.clone(),
            cluster: format!("{}, context {}", self.kind.name(), self.context),
            namespace: namespace.to_owned(),
            deployment: manifests.deployment_name().to_owned(),
            selector: manifests.pod_selector().to_owned(),
            nginx: self.nginx,
            entry: self.entry.clone(),
            host: manifests.host().to_owned(),
        }
    }
}

/// The kind that was chosen, and why, for the first line of a run.
pub struct Choice {
    /// The kind.
    pub kind: Kind,
    /// Why this one.
    pub why: String,
}

/// Takes the kind that was asked for; `auto` takes minikube where it and a working container engine are found.
///
/// # Errors
/// When the run is told to stop while the container engine is asked.
pub async fn choose(cx: &Cx) -> Result<Choice> {
    let sandbox = || Kind::Sandbox(sandbox::Sandbox::new(cx));
    let minikube = || Kind::Minikube(minikube::Minikube::new(cx));
    if let Some(name) = &cx.shared.context {
        let context = context::Context::new(cx, name);
        context.check()?;
        let kind = Kind::Context(context);
        return Ok(Choice { kind, why: format!("{name}, asked for") });
    }
    Ok(match cx.shared.cluster {
        // The command line has refused that one.
        ClusterChoice::Context => {
            return Err(anyhow!("--cluster context needs --context NAME")).exit(Exit::Usage);
        }
        ClusterChoice::Sandbox => Choice { kind: sandbox(), why: "asked for".to_owned() },
        ClusterChoice::Minikube => Choice { kind: minikube(), why: "asked for".to_owned() },
        ClusterChoice::Auto => match minikube::missing(cx).await? {
            None => {
                Choice { kind: minikube(), why: "minikube and a container engine are installed".to_owned() }
            }
            Some(why) => Choice { kind: sandbox(), why },
        },
    })
}

impl Kind {
    /// Its name as users write it.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Minikube(_) => "minikube",
            Kind::Sandbox(_) => "sandbox",
            Kind::Context(_) => "context",
        }
    }

    /// The problems that would keep it from running, each with its fix; empty is well.
    ///
    /// # Errors
    /// When the run is told to stop.
    pub async fn problems(&self, cx: &Cx) -> Result<Vec<Problem>> {
        match self {
            Kind::Minikube(minikube) => minikube.problems(cx).await,
            Kind::Sandbox(sandbox) => sandbox.problems(cx).await,
            Kind::Context(context) => context.problems(cx).await,
        }
    }

    /// How large its node is, or would be, while it does not run; this machine says nothing of a context's.
    ///
    /// # Errors
    /// When the machine can't be asked, or the run is told to stop.
    pub async fn size(&self, cx: &Cx) -> Result<Size> {
        let this_machine = || -> Result<Size> {
            Ok(Size {
                of: "this machine".to_owned(),
                memory_bytes: machine::memory_bytes()?,
                cpus: machine::cpus(),
            })
        };
        match self {
            Kind::Minikube(minikube) => Ok(minikube.size(cx).await?.unwrap_or(this_machine()?)),
            Kind::Sandbox(_) | Kind::Context(_) => this_machine(),
        }
    }

    /// Starts it, or finds it running.
    ///
    /// # Errors
    /// When it can't be started.
    pub async fn ensure_running(&self, cx: &Cx, step: &Running<'_>) -> Result<Outcome<Cluster>> {
        match self {
            Kind::Minikube(minikube) => minikube.ensure_running(cx, step).await,
            Kind::Sandbox(sandbox) => sandbox.ensure_running(cx, step).await,
            Kind::Context(context) => context.ensure_running(cx, step).await,
        }
    }

    /// The running cluster, or none; changes nothing.
    ///
    /// # Errors
    /// When it runs but can't be spoken to.
    pub async fn find(&self, cx: &Cx) -> Result<Option<Cluster>> {
        match self {
            Kind::Minikube(minikube) => minikube.find(cx).await,
            Kind::Sandbox(sandbox) => sandbox.find(cx).await,
            Kind::Context(context) => context.find(cx).await,
        }
    }

    /// That it runs, but not as this build of the tool would start it, and what replaces it.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn outdated(&self, cx: &Cx) -> Result<Option<String>> {
        match self {
            Kind::Minikube(_) | Kind::Context(_) => Ok(None),
            Kind::Sandbox(sandbox) => sandbox.outdated(cx).await,
        }
    }

    /// Whether it is a program that is built here.
    pub fn is_built_here(&self) -> bool {
        matches!(self, Kind::Sandbox(_))
    }

    /// How the app is compiled here for it; not at all where its own engine does that.
    pub fn compiles(&self) -> Option<Linkage> {
        match self {
            Kind::Minikube(_) | Kind::Context(_) => HOST_IS_NODE.then_some(Linkage::Static),
            Kind::Sandbox(_) => Some(Linkage::Host),
        }
    }

    /// Whether something answers where it was last: a look of a moment, that starts no tool.
    pub async fn seems_to_run(&self) -> bool {
        match self {
            Kind::Minikube(minikube) => is_listening(&minikube.kubeconfig()).await,
            Kind::Sandbox(sandbox) => is_listening(&sandbox.kubeconfig()).await,
            // It is never started from here.
            Kind::Context(_) => true,
        }
    }

    /// Says whether what runs is of the sources as they are now; that it is not is a warning.
    ///
    /// # Errors
    /// When they can't be built.
    pub async fn check_current(&self, cx: &Cx, step: &Running<'_>) -> Result<Outcome<()>> {
        match self {
            Kind::Minikube(_) | Kind::Context(_) => Ok(Outcome::Already((), "not built here".to_owned())),
            Kind::Sandbox(sandbox) => sandbox.check_current(cx, step).await,
        }
    }

    /// The running cluster, for commands that need one.
    ///
    /// # Errors
    /// When there is none; exit code 10.
    pub async fn expect(&self, cx: &Cx) -> Result<Cluster> {
        match self.find(cx).await? {
            Some(cluster) => {
                self.watch_over(cx);
                Ok(cluster)
            }
            None => Err(anyhow!("{}", self.absence(cx).await?))
                .hint(format!("start it with `{}`", cx.commands.xtask("up")))
                .exit(Exit::Preflight),
        }
    }

    /// From here on, the run ends when this cluster has gone for good.
    pub fn watch_over(&self, cx: &Cx) {
        let kind = self.clone();
        cx.depend_on(Box::new(move |cx| {
            let kind = kind.clone();
            Box::pin(async move { kind.gone(cx).await })
        }));
    }

    /// Why it has gone for good; nothing while it is there. An API server that only restarts has its process, or the
    /// container that it lives in.
    async fn gone(&self, cx: &Cx) -> Option<anyhow::Error> {
        let why = match self {
            Kind::Minikube(minikube) => minikube.gone(cx).await,
            Kind::Sandbox(sandbox) => sandbox.gone(cx).await,
            // A network that is away says nothing of the cluster behind it.
            Kind::Context(_) => None,
        }?;
        let again = format!("`{}` starts it again", cx.commands.xtask("up"));
        Some(anyhow!("the cluster has gone: {why}").hint(again).exit(Exit::GateDoomed))
    }

    /// Why [`Self::find`] finds nothing, in a clause.
    ///
    /// # Errors
    /// When the cluster's own tool can't be asked.
    pub async fn absence(&self, cx: &Cx) -> Result<String> {
        match self {
            Kind::Minikube(minikube) => minikube.absence(cx).await,
            Kind::Context(context) => Ok(format!("the context {} does not answer", context.name())),
            Kind::Sandbox(_) => Ok(format!("the sandbox cluster `{}` is not running", cx.shared.profile)),
        }
    }

    /// Switches the ingress controller on.
    ///
    /// # Errors
    /// When that fails.
    pub async fn enable_ingress(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        cluster: &Cluster,
    ) -> Result<Outcome<()>> {
        match self {
            Kind::Minikube(minikube) => minikube.enable_ingress(cx, step, cluster).await,
            Kind::Sandbox(sandbox) => sandbox.enable_ingress(cx).await,
            Kind::Context(_) => Ok(Outcome::Already((), "found, and not installed by this tool".to_owned())),
        }
    }

    /// Switches the metrics API on.
    ///
    /// # Errors
    /// When that fails.
    pub async fn enable_metrics(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        cluster: &Cluster,
    ) -> Result<Outcome<()>> {
        match self {
            Kind::Minikube(minikube) => minikube.enable_metrics(cx, step, cluster).await,
            Kind::Sandbox(sandbox) => sandbox.enable_metrics(cx).await,
            Kind::Context(_) if cluster.metrics => {
                Ok(Outcome::Already((), "found, and not installed by this tool".to_owned()))
            }
            Kind::Context(_) => Ok(Outcome::Already(
                (),
                "the cluster has none, and no autoscaler in kubernetes/ needs it".to_owned(),
            )),
        }
    }

    /// Gets the app's image into the cluster.
    ///
    /// # Errors
    /// When the build fails.
    pub async fn build_image(
        &self,
        cx: &Cx,
        step: &Running<'_>,
        cluster: &Cluster,
        recipe: &Recipe,
    ) -> Result<Outcome<ImageRef>> {
        match self {
            Kind::Minikube(minikube) => minikube.build_image(cx, step, recipe).await,
            Kind::Sandbox(sandbox) => sandbox.build_image(cx, step, recipe).await,
            Kind::Context(context) => context.build_image(cx, step, cluster, recipe).await,
        }
    }

    /// What the cluster itself knows an image reference by, if any.
    ///
    /// # Errors
    /// When the cluster can't be asked.
    pub async fn digests(&self, cx: &Cx, client: &kube::Client, reference: &str) -> Result<Option<Digests>> {
        match self {
            Kind::Minikube(minikube) => minikube.digests(cx, reference).await,
            Kind::Sandbox(sandbox) => sandbox.digests(cx, reference).await,
            Kind::Context(context) => context.digests(cx, client, reference).await,
        }
    }

    /// What `down` does to the cluster itself, after the app is gone from it. Returns what it did.
    ///
    /// # Errors
    /// When it can't be stopped.
    pub async fn stop(&self, cx: &Cx, step: &Running<'_>, delete: bool) -> Result<Outcome<()>> {
        match self {
            Kind::Minikube(minikube) => minikube.stop(cx, step, delete).await,
            Kind::Sandbox(sandbox) => sandbox.stop(cx, step).await,
            Kind::Context(context) => Ok(context.stop()),
        }
    }

    /// What each step would do, for `--dry-run`: the exact commands or API calls.
    ///
    /// # Errors
    /// When there is no current folder, or the cluster's own tool can't be asked.
    pub async fn plan(&self, cx: &Cx) -> Result<Plan> {
        match self {
            Kind::Minikube(minikube) => minikube.plan(cx).await,
            Kind::Sandbox(sandbox) => sandbox.plan(),
            Kind::Context(context) => context.plan(),
        }
    }
}

/// The commands and calls of the steps that differ between kinds.
pub struct Plan {
    /// Being running.
    pub cluster: Vec<String>,
    /// Whether that is of the sources as they are now; empty for what is not built here.
    pub current: Vec<String>,
    /// Ingress.
    pub ingress: Vec<String>,
    /// Metrics.
    pub metrics: Vec<String>,
    /// The image.
    pub image: Vec<String>,
}

/// What a node has to give.
pub struct Size {
    /// Whose size this is.
    pub of: String,
    /// Its memory.
    pub memory_bytes: u64,
    /// Its CPUs.
    pub cpus: u32,
}

/// Something that is wrong on this machine, and the command or change that fixes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What fixes it.
    pub fix: String,
}

/// On this machine; a node that has been switched off does not refuse, it is silent.
const CONNECTS_WITHIN: Duration = Duration::from_millis(500);

/// How a request is tried again that the API server is too busy for (429, 503, 504): the first and the longest pause,
/// and how often. Under a second in all: long enough for a stumble.
const RETRY: (Duration, Duration, u32) = (Duration::from_millis(20), Duration::from_millis(320), 5);

/// Whether something takes connections where a kubeconfig says that the API server is.
async fn is_listening(kubeconfig: &std::path::Path) -> bool {
    let server = || -> Option<(String, u16)> {
        let config = Kubeconfig::read_from(kubeconfig).ok()?;
        let server: http::Uri = config.clusters.first()?.cluster.as_ref()?.server.as_ref()?.parse().ok()?;
        Some((server.host()?.trim_matches(['[', ']']).to_owned(), server.port_u16().unwrap_or(443)))
    };
    let Some((host, port)) = server() else { return false };
    let connect = tokio::net::TcpStream::connect((host.as_str(), port));
    tokio::time::timeout(CONNECTS_WITHIN, connect).await.is_ok_and(|connected| connected.is_ok())
}

/// A client that knows one context of one kubeconfig file and nothing of the user's own.
///
/// # Errors
/// When the file can't be read or lacks the context.
pub async fn client(kubeconfig: &std::path::Path, context: &str) -> Result<kube::Client> {
    let config = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("reading the kubeconfig {}", kubeconfig.display()))?;
    let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
    let mut config = kube::Config::from_custom_kubeconfig(config, &options)
        .await
        .with_context(|| format!("using the context {context} of {}", kubeconfig.display()))?;
    // The cluster is on this machine: a proxy of the environment is never the way to it.
    config.proxy_url = None;
    client_of(config)
}

fn client_of(mut config: kube::Config) -> Result<kube::Client> {
    // kube's own policy goes on for minutes, in which a gate could not say why it is closed.
    config.default_retry = false;
    let (first, most, tries) = RETRY;
    let retry = RetryPolicy::new(first, most, tries, false).context("setting how requests are retried")?;
    let namespace = config.default_namespace.clone();
    let client = kube::Client::try_from(config).context("making a client for the cluster")?;
    let send = tower::service_fn(move |request| {
        let client = client.clone();
        async move { client.send(request).await.map_err(tower::BoxError::from) }
    });
    Ok(kube::Client::new(Retry::new(retry, send), namespace))
}
