//! What a run keeps of each request: one JSON object a line of `records.jsonl`.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// How a scheduled request ended. Exactly one of these, for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A complete answer with a status of 200 to 299.
    Ok,
    /// A complete answer with any other status: a 502 is no success.
    HttpError,
    /// No answer, or half of one: refused, reset, closed early.
    SocketError,
    /// No complete answer in time; we closed the connection.
    Timeout,
    /// Due, but every sender was busy until its own time was over.
    Dropped,
    /// Not sent, for the run ended before.
    Unsent,
}

/// One request, as it went. Times are microseconds since the first moment of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its place in the schedule, from 0.
    pub n: u64,
    /// Its `X-Request-ID`.
    pub id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// When it was due.
    pub due_us: u64,
    /// When it was sent; nothing where it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_us: Option<u64>,
    /// When its fate was known.
    pub end_us: u64,
    /// The status, where there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The pod that says it answered (`X-Served-By`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
    /// Where the time went, by the server's own word (`Server-Timing`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_timing: Option<String>,
    /// What went wrong, or how an answer that is no success begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Record {
    /// Whether it was anything but a success.
    pub fn is_failure(&self) -> bool {
        self.outcome != Outcome::Ok
    }

    /// Whether the generator's own machine was out of open files, ports or memory: that says nothing about the server.
    pub fn is_own_limit(&self) -> bool {
        let own = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
        // The system's own word: `Too many open files (os error 24)`.
        let code = self.error.as_deref().and_then(|error| error.rsplit_once("(os error "));
        let code = code.and_then(|(_, code)| code.strip_suffix(')')?.parse().ok());
        self.outcome == Outcome::SocketError && own.iter().any(|own| Some(own.raw_os_error()) == code)
    }
}
