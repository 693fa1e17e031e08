//! The agent: which pods are to run here, and a task for each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use leash::Leash;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::Addresses;
use crate::container::process::kill_group;
use crate::events::Recorder;
use crate::faults::{Faults, Refusal};
use crate::node;
use crate::pod::{self, PodHandle};
use crate::sampler::Sampler;
use crate::{ImageStore, LogError, LogRequest, LogStream, Usage, logs};

/// What the node agent is told.
#[derive(Clone)]
pub struct NodeConfig {
    /// The node's name.
    pub node_name: String,
    /// Where logs and the pods' folders are kept.
    pub dir: PathBuf,
    /// The images at hand; there is no registry.
    pub images: ImageStore,
    /// Images that are programs of ours: image reference → argv prefix, to which a container's args are appended.
    pub builtin: BTreeMap<String, Vec<OsString>>,
    /// Given to builtin containers as `KUBECONFIG`.
    pub kubeconfig: PathBuf,
    /// The node's memory.
    pub memory_bytes: u64,
    /// The node's CPUs.
    pub cpus: u32,
    /// Ends the containers should this program be killed.
    pub leash: Leash,
}

/// Times that tests shorten. The default is the kubelet's, where it has one.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// First pause before a crashed container is restarted; doubles with each crash.
    pub crash_backoff: Duration,
    /// The longest such pause. A container that ran twice as long starts over with the first.
    pub crash_backoff_max: Duration,
    /// How often CPU and memory are sampled, and memory limits enforced.
    pub sample_period: Duration,
    /// How often a container that cannot be created (image, ConfigMap, Secret missing) is tried again.
    pub create_retry: Duration,
    /// Give each pod an address of its own where the system allows it. `false`: only 127.0.0.1, and ports are remapped,
    /// as on systems that have no other loopback address.
    pub pod_addresses: bool,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            crash_backoff: Duration::from_secs(10),
            crash_backoff_max: Duration::from_secs(300),
            sample_period: Duration::from_secs(1),
            create_retry: Duration::from_secs(1),
            pod_addresses: true,
        }
    }
}

/// What every part of the agent needs.
pub(crate) struct Context {
    pub(crate) client: kube::Client,
    pub(crate) config: NodeConfig,
    pub(crate) tuning: Tuning,
    pub(crate) events: Recorder,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) faults: Faults,
    pub(crate) shutdown: CancellationToken,
}

/// The node agent: the kubelet's part, without a container engine. Cheap to clone.
///
/// A container is a process group with a clean environment, an own loopback address (told to it as `HOST`, and as
/// `PORT` where ports are remapped) and a memory limit that is enforced by sampling. It has no mounts: an emptyDir at
/// `/tmp` becomes `TMPDIR`, of other mounts an event says that they are not there. Users, capabilities and CPU limits of
/// the spec have no effect.
#[derive(Clone)]
pub struct NodeAgent {
    cx: Arc<Context>,
    pods: Pods,
    sampler: Arc<Sampler>,
    stopped: CancellationToken,
}

/// The pods of this node, by uid.
#[derive(Clone, Default)]
pub(crate) struct Pods(Arc<Mutex<HashMap<String, Arc<PodHandle>>>>);

impl Pods {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<PodHandle>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> Vec<Arc<PodHandle>> {
        self.lock().values().cloned().collect()
    }

    /// By name: of two with the same name, the one whose object is still there.
    fn named(&self, namespace: &str, name: &str) -> Option<Arc<PodHandle>> {
        let pods = self.lock();
        let mut found: Vec<_> =
            pods.values().filter(|pod| pod.namespace == namespace && pod.name == name).cloned().collect();
        found.sort_by_key(|pod| pod.gone.is_cancelled());
        found.into_iter().next()
    }
}

impl NodeAgent {
    /// Registers the Node `config.node_name`, keeps it Ready and runs the pods bound to it, until `shutdown`.
    pub async fn start(
        client: kube::Client,
        config: NodeConfig,
        shutdown: CancellationToken,
    ) -> Result<NodeAgent> {
        NodeAgent::start_with(client, config, Tuning::default(), shutdown).await
    }

    /// [`NodeAgent::start`] with other times.
    pub async fn start_with(
        client: kube::Client,
        config: NodeConfig,
        tuning: Tuning,
        shutdown: CancellationToken,
    ) -> Result<NodeAgent> {
        tokio::fs::create_dir_all(&config.dir)
            .await
            .with_context(|| format!("making the node's folder {}", config.dir.display()))?;
        let events = Recorder::start(client.clone(), &config.node_name);
        let addresses = Arc::new(Addresses::new(&config.dir, tuning.pod_addresses));
        node::register(&client, &config).await?;
        let cx = Arc::new(Context {
            client,
            config,
            tuning,
            events,
            addresses,
            faults: Faults::default(),
            shutdown,
        });
        let agent = NodeAgent {
            cx: cx.clone(),
            pods: Pods::default(),
            sampler: Arc::new(Sampler::default()),
            stopped: CancellationToken::new(),
        };
        let tasks = TaskTracker::new();
        tasks.spawn(node::keep_alive(cx.clone()));
        tasks.spawn(agent.sampler.clone().run(cx.clone(), agent.pods.clone()));
        tasks.spawn(agent.clone().watch(tasks.clone()));
        let stopped = agent.stopped.clone();
        tokio::spawn(async move {
            cx.shutdown.cancelled().await;
            tasks.close();
            tasks.wait().await;
            stopped.cancel();
        });
        Ok(agent)
    }

    /// Waits until the agent has stopped after `shutdown`: no container is left.
    pub async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// The log that `request` asks for.
    pub async fn logs(&self, request: LogRequest) -> Result<LogStream, LogError> {
        let Some(pod) = self.pods.named(&request.namespace, &request.pod) else {
            return Err(LogError::NotFound(format!("pods {:?} not found", request.pod)));
        };
        logs::of_pod(&pod, &request).await
    }

    /// A connection to a port of a pod that runs here. [`io::ErrorKind::NotFound`]: there is no such pod.
    pub async fn connect(&self, namespace: &str, pod: &str, port: u16) -> io::Result<TcpStream> {
        let handle = self.pods.named(namespace, pod).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("pod {namespace}/{pod} does not run on this node"),
            )
        })?;
        let address = handle.address().map(|address| address.dial(port)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotConnected, format!("pod {namespace}/{pod} has no address yet"))
        })?;
        TcpStream::connect(address).await.map_err(|error| {
            let message =
                format!("cannot connect to port {port} of pod {namespace}/{pod} at {address}: {error}");
            io::Error::new(error.kind(), message)
        })
    }

    /// Kills the containers of a pod, as a fault on purpose. False: there is no such pod, or none of them runs.
    #[must_use]
    pub fn kill(&self, namespace: &str, pod: &str) -> bool {
        let groups = self.pods.named(namespace, pod).map(|pod| pod.groups()).unwrap_or_default();
        groups.iter().for_each(|group| kill_group(group.pgid));
        !groups.is_empty()
    }

    /// From now on containers of this image (`repository`, or `repository:tag`) can't be created; a fault on purpose.
    pub fn refuse_image(&self, image: &str, refusal: Refusal) {
        self.cx.faults.refuse(image, refusal);
    }

    /// Makes every probe of a namespace fail for a time; a fault on purpose.
    pub fn fail_probes(&self, namespace: &str, time: Duration) {
        self.cx.faults.fail_probes(namespace, time);
    }

    /// Ends the faults that last.
    pub fn clear_faults(&self) {
        self.cx.faults.clear();
    }

    /// The latest CPU and memory samples.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.sampler.usage()
    }

    async fn watch(self, tasks: TaskTracker) {
        let api: Api<Pod> = Api::all(self.cx.client.clone());
        let config =
            watcher::Config::default().fields(&format!("spec.nodeName={}", self.cx.config.node_name));
        let mut events = watcher(api, config).default_backoff().boxed();
        let mut listed = HashSet::new();
        loop {
            let event = tokio::select! {
                biased;
                () = self.cx.shutdown.cancelled() => return,
                event = events.try_next() => event,
            };
            match event {
                Ok(Some(watcher::Event::Init)) => listed.clear(),
                Ok(Some(watcher::Event::InitApply(pod))) => {
                    listed.extend(pod.metadata.uid.clone());
                    self.apply(pod, &tasks);
                }
                Ok(Some(watcher::Event::InitDone)) => {
                    for pod in self.pods.all().iter().filter(|pod| !listed.contains(&pod.uid)) {
                        pod.gone.cancel();
                    }
                }
                Ok(Some(watcher::Event::Apply(pod))) => self.apply(pod, &tasks),
                Ok(Some(watcher::Event::Delete(pod))) => {
                    let uid = pod.metadata.uid.unwrap_or_default();
                    if let Some(handle) = self.pods.lock().get(&uid) {
                        handle.gone.cancel();
                    }
                }
                Ok(None) => return,
                // The watcher goes on by itself, after a pause.
                Err(error) => tracing::warn!("watching the node's pods: {error}"),
            }
        }
    }

    fn apply(&self, pod: Pod, tasks: &TaskTracker) {
        let pod = Arc::new(pod);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut pods = self.pods.lock();
        if let Some(known) = pods.get(&uid) {
            known.object.send_replace(pod);
            return;
        }
        let handle = Arc::new(PodHandle::new(&self.cx.config.dir, pod));
        // The watch can have missed that the name changed hands.
        for other in
            pods.values().filter(|other| other.namespace == handle.namespace && other.name == handle.name)
        {
            other.gone.cancel();
        }
        pods.insert(uid.clone(), handle.clone());
        let (cx, pods) = (self.cx.clone(), self.pods.clone());
        tasks.spawn(async move {
            pod::run(cx, handle).await;
            pods.lock().remove(&uid);
        });
    }
}
