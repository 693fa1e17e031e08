//! A cluster as a value: it runs in this process, and ends when it is dropped.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use kube::config::Kubeconfig;
use leash::Leash;
use sandbox_contract::Fault;
use sandbox_ingress::AccessLog;
use sandbox_node::{ImageId, ImageLayout, ImageStore, Tuning};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::assembly::{self, Access, Parts, Plan};
use crate::error::{Doing as _, Result};
use crate::{addons, client};

/// Name of the context in its kubeconfig.
const CONTEXT: &str = "sandbox";
/// How long requests under way may take after the end was asked for.
const DRAIN: Duration = Duration::from_secs(1);
/// What its own work runs on.
const THREADS: usize = 2;

/// A whole cluster in this process: API server, controllers and a node whose containers are processes.
///
/// It has threads of its own, so that a test may block or end as it likes; what it keeps is in a temporary folder. Any
/// number run side by side. Dropping it waits until its pods have ended; should the process be killed, a shell that it
/// has started ends them.
///
/// ```no_run
/// # async fn test() -> Result<(), sandbox::Error> {
/// let cluster = sandbox::Cluster::start().await?;
/// let pods = kube::Api::<k8s_openapi::api::core::v1::Pod>::default_namespaced(cluster.client());
/// # Ok(())
/// # }
/// ```
pub struct Cluster {
    client: Client,
    kubeconfig: PathBuf,
    entry: Option<String>,
    images: ImageStore,
    /// Tells the thread to end.
    end: Option<DropGuard>,
    thread: Option<JoinHandle<()>>,
}

/// A cluster to be started.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    memory_bytes: Option<u64>,
    cpus: Option<u32>,
    ingress: bool,
    tuning: Tuning,
}

impl Builder {
    /// How large its node says it is; this machine's size otherwise.
    #[must_use]
    pub fn node(mut self, memory_bytes: u64, cpus: u32) -> Builder {
        self.memory_bytes = Some(memory_bytes);
        self.cpus = Some(cpus);
        self
    }

    /// Other times than the kubelet's, e.g. shorter pauses before restarts.
    #[must_use]
    pub fn tuning(mut self, tuning: Tuning) -> Builder {
        self.tuning = tuning;
        self
    }

    /// With an ingress controller for the class `nginx`, see [`Cluster::entry`]. It runs in this process and not as a
    /// pod.
    #[must_use]
    pub fn ingress(mut self) -> Builder {
        self.ingress = true;
        self
    }

    /// Starts it, and waits until its node is Ready.
    ///
    /// # Errors
    /// If it does not become ready, or the machine has no room for it.
    pub async fn start(self) -> Result<Cluster> {
        let shutdown = CancellationToken::new();
        let end = shutdown.clone().drop_guard();
        let (report, started) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("sandbox".to_owned())
            .spawn(move || run(&self, report, &shutdown))
            .doing("starting the cluster's thread")?;
        let started = started.await.doing("starting the cluster")??;
        let kubeconfig = Kubeconfig::read_from(&started.kubeconfig).doing("reading the kubeconfig")?;
        Ok(Cluster {
            client: client::of_kubeconfig(kubeconfig, Some(CONTEXT)).await?,
            kubeconfig: started.kubeconfig,
            entry: started.entry,
            images: started.images,
            end: Some(end),
            thread: Some(thread),
        })
    }
}

impl Cluster {
    /// A cluster with the node that this machine is.
    ///
    /// # Errors
    /// If it does not become ready, or the machine has no room for it.
    pub async fn start() -> Result<Cluster> {
        Cluster::builder().start().await
    }

    /// A cluster to be described first.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A client over the cluster's socket, with all rights; its default namespace is `default`. What it asks meets the
    /// faults in force.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig for other programs, such as kubectl; gone with the cluster.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where the ingress takes requests, `http://127.0.0.1:PORT`; `None` without [`Builder::ingress`].
    #[must_use]
    pub fn entry(&self) -> Option<&str> {
        self.entry.as_deref()
    }

    /// Puts an image into the cluster. A pod whose container names `tag` runs the layout's command line.
    ///
    /// # Errors
    /// If a file can't be copied, or `tag` is no image's name.
    pub fn import(&self, tag: &str, layout: &ImageLayout) -> Result<ImageId> {
        self.images.import(tag, layout).doing_with(|| format!("importing image {tag}"))
    }

    /// Switches the metrics API on, which `kubectl top` and autoscalers ask.
    ///
    /// # Errors
    /// If the API server can't be asked.
    pub async fn enable_metrics(&self) -> Result<()> {
        addons::enable_metrics(&self.client).await.map(drop)
    }

    /// Does something wrong on purpose.
    ///
    /// # Errors
    /// If it can't be done, e.g. there is no such pod.
    pub async fn fault(&self, fault: &Fault) -> Result<()> {
        let body = serde_json::to_vec(fault).doing("writing the fault")?;
        self.ask_for_faults(Method::POST, body).await
    }

    /// Ends the faults in force.
    ///
    /// # Errors
    /// If the API server can't be asked.
    pub async fn clear_faults(&self) -> Result<()> {
        self.ask_for_faults(Method::DELETE, Vec::new()).await
    }

    async fn ask_for_faults(&self, method: Method, body: Vec<u8>) -> Result<()> {
        let request = Request::builder().method(method).uri("/sandbox/faults").body(body);
        let request = request.doing("asking for a fault")?;
        self.client.request_text(request).await.doing("asking for a fault").map(drop)
    }

    /// Ends it, and waits until its pods have ended, without blocking the thread as dropping does.
    pub async fn stop(mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            // That it panicked was printed then.
            let _ = tokio::task::spawn_blocking(|| thread.join()).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("kubeconfig", &self.kubeconfig).finish_non_exhaustive()
    }
}

/// What the thread says of a cluster that has started.
struct Started {
    kubeconfig: PathBuf,
    entry: Option<String>,
    images: ImageStore,
}

/// The thread's work: the cluster from its start to its end.
fn run(builder: &Builder, report: oneshot::Sender<Result<Started>>, shutdown: &CancellationToken) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(THREADS).thread_name("sandbox").enable_all().build();
    let dir = tempfile::Builder::new().prefix("sandbox-").tempdir();
    let ground = runtime.and_then(|runtime| Ok((runtime, dir?))).doing("making room for a cluster");
    let (runtime, dir) = match ground {
        Ok(ground) => ground,
        Err(error) => {
            // Nobody waits any more: nothing to tell.
            let _ = report.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        match start(builder, dir.path(), shutdown).await {
            Ok((started, mut parts)) => {
                if report.send(Ok(started)).is_ok() {
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        error = parts.failed() => tracing::error!("the cluster ends: {}", error.chain()),
                    }
                }
                parts.end().await;
            }
            Err(error) => drop(report.send(Err(error))),
        }
    });
}

async fn start(builder: &Builder, dir: &Path, shutdown: &CancellationToken) -> Result<(Started, Parts)> {
    let descriptors = sandbox_connections::raise_descriptor_limit();
    tracing::debug!("up to {descriptors} open files");
    let kubeconfig = dir.join("kubeconfig");
    let images = ImageStore::open(dir.join("images")).doing("opening the image store")?;
    let memory = || machine::memory_bytes().doing("reading this machine's memory");
    let plan = Plan {
        context: CONTEXT.to_owned(),
        node_dir: dir.join("node"),
        kubeconfig: kubeconfig.clone(),
        images: images.clone(),
        builtin: BTreeMap::new(),
        memory_bytes: builder.memory_bytes.map_or_else(memory, Ok)?,
        cpus: builder.cpus.unwrap_or_else(machine::cpus),
        tuning: builder.tuning.clone(),
        leash: Leash::in_shell().doing("starting the leash")?,
        faults: true,
    };
    let (access, parts) = assembly::start(plan).await?;
    let rest = async {
        assembly::ready(&access.client).await?;
        std::fs::write(&kubeconfig, &access.kubeconfig).doing("writing the kubeconfig")?;
        if builder.ingress { start_ingress(&access, shutdown).await.map(Some) } else { Ok(None) }
    };
    match rest.await {
        Ok(entry) => Ok((Started { kubeconfig, entry, images }, parts)),
        Err(error) => {
            parts.end().await;
            Err(error)
        }
    }
}

/// Runs the ingress controller; gives back where it takes requests.
async fn start_ingress(access: &Access, shutdown: &CancellationToken) -> Result<String> {
    addons::add_ingress_class(&access.client).await?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let entry = TcpListener::bind(any).and_then(|listener| listener.local_addr());
    let entry = entry.doing("looking for a free port for the ingress")?;
    let options = sandbox_ingress::Options {
        http_listen: entry,
        pod_listen: any,
        health_listen: any,
        admission_listen: any,
        controller_class: sandbox_ingress::CONTROLLER.to_owned(),
        pod_name: "ingress".to_owned(),
        pod_namespace: addons::INGRESS_NAMESPACE.to_owned(),
        publish_address: IpAddr::V4(Ipv4Addr::LOCALHOST).to_string(),
        drain: DRAIN,
        faults: true,
    };
    let log = AccessLog::new(std::io::sink());
    let running = sandbox_ingress::run(access.client.clone(), options, log, shutdown.clone());
    tokio::spawn(async move {
        if let Err(error) = running.await {
            tracing::error!("the ingress ended: {error:#}");
        }
    });
    Ok(format!("http://{entry}"))
}
