//! What the API server asks of the node.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::Fault;

/// A log, in pieces of whole lines.
pub type LogStream = BoxStream<'static, std::io::Result<Bytes>>;

/// What the API server asks of the node.
pub trait Kubelet: Send + Sync + 'static {
    /// A container's log as a stream of bytes; with `follow` it ends when the container does.
    fn logs(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, LogError>>;
    /// A connection to a port of a pod that runs there. [`std::io::ErrorKind::NotFound`]: there is no such pod.
    fn connect(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> BoxFuture<'static, std::io::Result<tokio::net::TcpStream>>;
    /// The latest samples: node and per container.
    fn usage(&self) -> Usage;
    /// Does a fault on purpose, for tests; one that is a node's.
    ///
    /// # Errors
    /// When it can't be done, e.g. there is no such pod.
    fn fault(&self, fault: &Fault) -> Result<(), String> {
        Err(format!("this node does no faults, such as {fault:?}"))
    }
    /// Images, probes and addresses are as they should be again.
    fn clear_faults(&self) {}
}

/// Which log, and how much of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// The container; the only one when absent.
    pub container: Option<String>,
    /// Go on as lines are written.
    pub follow: bool,
    /// The run before the current one.
    pub previous: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<i64>,
    /// Only lines from then on.
    pub since: Option<Timestamp>,
    /// At most this many bytes.
    pub limit_bytes: Option<i64>,
}

/// Why there is no log, worded as Kubernetes words it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogError {
    /// No such pod; answered as 404.
    NotFound(String),
    /// No such container, no such run, or not started yet; answered as 400.
    BadRequest(String),
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LogError::NotFound(message) | LogError::BadRequest(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for LogError {}

/// What the node and its containers use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// All containers together.
    pub node: Sample,
    /// Every running pod that has been sampled over a window.
    pub pods: Vec<PodUsage>,
}

/// What one pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodUsage {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Container name and its sample.
    pub containers: Vec<(String, Sample)>,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Mean CPU over the window, in billionths of a core.
    pub cpu_nanocores: u64,
    /// Resident memory of the container's whole process group, at the end of the window.
    pub memory_bytes: u64,
    /// When the window ended.
    pub at: jiff::Timestamp,
    /// How long the window was.
    pub window: Duration,
}
