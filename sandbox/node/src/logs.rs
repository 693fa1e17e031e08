//! Container logs: written in the CRI format, read back as `kubectl logs` asks.

mod read;
mod select;
mod write;

use bytes::Bytes;
use futures::stream::BoxStream;

pub(crate) use read::read;
pub(crate) use select::of_pod;
pub(crate) use write::RunLog;

/// What `kubectl logs` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container; may be left out where the pod has one.
    pub container: Option<String>,
    /// Go on until the container ends.
    pub follow: bool,
    /// Of the run before the current one.
    pub previous: bool,
    /// Each line with the time of its writing in front.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<i64>,
    /// Only what is younger.
    pub since_seconds: Option<i64>,
    /// Stop after so many bytes.
    pub limit_bytes: Option<i64>,
}

/// Why there is no log, as Kubernetes words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// No such pod (HTTP 404).
    NotFound(String),
    /// No such container, no such run, or not started yet (HTTP 400).
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

/// A log, in pieces of whole lines.
pub type LogStream = BoxStream<'static, std::io::Result<Bytes>>;
