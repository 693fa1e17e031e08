//! The agent: which pods are to run here, and a task for each.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use leash::Leash;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::{ImageStore, LogError, LogRequest, LogStream, Sample, Usage};

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

/// Times that tests shorten. The default is the kubelet's.
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
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            crash_backoff: Duration::from_secs(10),
            crash_backoff_max: Duration::from_secs(300),
            sample_period: Duration::from_secs(1),
            create_retry: Duration::from_secs(1),
        }
    }
}

/// The node agent. Cheap to clone.
#[derive(Clone)]
pub struct NodeAgent {
    inner: Arc<Inner>,
}

struct Inner {
    stopped: CancellationToken,
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
        _client: kube::Client,
        _config: NodeConfig,
        _tuning: Tuning,
        shutdown: CancellationToken,
    ) -> Result<NodeAgent> {
        Ok(NodeAgent { inner: Arc::new(Inner { stopped: shutdown }) })
    }

    /// Waits until the agent has stopped after `shutdown`: no container is left.
    pub async fn stopped(&self) {
        self.inner.stopped.cancelled().await;
    }

    /// The log that `request` asks for.
    pub async fn logs(&self, request: LogRequest) -> Result<LogStream, LogError> {
        Err(LogError::NotFound(format!("pods {:?} not found", request.pod)))
    }

    /// A connection to a port of a pod that runs here.
    pub async fn connect(&self, namespace: &str, pod: &str, _port: u16) -> io::Result<TcpStream> {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("no pod {namespace}/{pod} runs here")))
    }

    /// The latest CPU and memory samples.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let node = Sample { cpu_nanocores: 0, memory_bytes: 0, at: Timestamp::now(), window: Duration::ZERO };
        Usage { node, pods: Vec::new() }
    }
}
