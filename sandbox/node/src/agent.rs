//! The agent: which pods are to run here, and a task for each.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use sandbox_contract::{Fault, Kubelet, LogError, LogRequest, LogStream, Usage};
use sandbox_events::Recorder;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::Addresses;
use crate::container::process::kill_group;
use crate::context::{Context, NodeConfig, Tuning};
use crate::faults::Faults;
use crate::image::Reference;
use crate::pod::handle::{PodHandle, Pods};
use crate::sampler::Sampler;
use crate::{node, pod};

/// The node agent: the kubelet's part, without a container engine. Cheap to clone.
///
/// A container is a process group with a clean environment, an own loopback address (told to it as `HOST`, and as
/// `PORT` where ports are remapped) and a memory limit that is enforced by sampling. It has no mounts: an emptyDir at
/// `/tmp` becomes `TMPDIR`, of other mounts an event says that they are not there. Users, capabilities and CPU limits
/// of the spec have no effect.
#[derive(Clone)]
pub struct NodeAgent {
    cx: Arc<Context>,
    pods: Pods,
    sampler: Arc<Sampler>,
    stopped: CancellationToken,
}

impl NodeAgent {
    /// Registers the Node `config.node_name`, keeps it Ready and runs the pods bound to it, until `shutdown`.
    ///
    /// # Errors
    /// If the node's folder can't be made, or the node not registered.
    pub async fn start(
        client: kube::Client,
        config: NodeConfig,
        shutdown: CancellationToken,
    ) -> Result<NodeAgent> {
        NodeAgent::start_with(client, config, Tuning::default(), shutdown).await
    }

    /// [`NodeAgent::start`] with other times.
    ///
    /// # Errors
    /// As [`NodeAgent::start`].
    pub async fn start_with(
        client: kube::Client,
        config: NodeConfig,
        tuning: Tuning,
        shutdown: CancellationToken,
    ) -> Result<NodeAgent> {
        tokio::fs::create_dir_all(&config.dir)
            .await
            .with_context(|| format!("making the node's folder {}", config.dir.display()))?;
        let (events, writing) = Recorder::new(client.clone(), Some(config.node_name.clone()));
        tokio::spawn(writing);
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
    ///
    /// # Errors
    /// If there is no such pod, container or run, or it has not started yet.
    pub async fn logs(&self, request: LogRequest) -> Result<LogStream, LogError> {
        let Some(pod) = self.pods.named(&request.namespace, &request.pod) else {
            return Err(LogError::NotFound(format!("pods {:?} not found", request.pod)));
        };
        pod::log::of_pod(&pod, &request).await
    }

    /// A connection to a port of a pod that runs here. [`io::ErrorKind::NotFound`]: there is no such pod.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if no such pod runs here; else what connecting failed with.
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

    /// Kills the containers of a pod. False: there is no such pod, or none of them runs.
    fn kill(&self, namespace: &str, pod: &str) -> bool {
        let groups = self.pods.named(namespace, pod).map(|pod| pod.groups()).unwrap_or_default();
        groups.iter().for_each(|group| kill_group(group.pgid));
        !groups.is_empty()
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

impl Kubelet for NodeAgent {
    fn logs(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, LogError>> {
        let node = self.clone();
        async move { NodeAgent::logs(&node, request).await }.boxed()
    }

    fn connect(&self, namespace: &str, pod: &str, port: u16) -> BoxFuture<'static, io::Result<TcpStream>> {
        let (node, namespace, pod) = (self.clone(), namespace.to_owned(), pod.to_owned());
        async move { NodeAgent::connect(&node, &namespace, &pod, port).await }.boxed()
    }

    fn usage(&self) -> Usage {
        NodeAgent::usage(self)
    }

    fn fault(&self, fault: &Fault) -> Result<(), String> {
        let faults = &self.cx.faults;
        match fault {
            Fault::Kill { namespace, pod } => {
                if !self.kill(namespace, pod) {
                    return Err(format!("no container of pod {namespace}/{pod} runs here"));
                }
            }
            Fault::RefuseImage { image, answer } => {
                Reference::parse(image).map_err(|error| error.to_string())?;
                faults.refuse(image, *answer);
            }
            Fault::FailProbes { namespace, seconds } => {
                let time =
                    Duration::try_from_secs_f64(*seconds).map_err(|error| format!("seconds: {error}"))?;
                faults.fail_probes(namespace, time);
            }
            Fault::BlackHole => faults.open_black_hole(),
            Fault::Api(_) | Fault::CutWatches { .. } | Fault::Proxy { .. } | Fault::Latency { .. } => {
                return Err(format!("this is no fault of a node: {fault:?}"));
            }
        }
        Ok(())
    }

    fn clear_faults(&self) {
        self.cx.faults.clear();
    }
}
