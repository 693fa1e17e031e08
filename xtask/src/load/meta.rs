//! What a run keeps of itself: `load.json`.

use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use xtask_load::tally::{Buckets, Latency};

/// The file in the run's folder.
pub const FILE: &str = "load.json";

/// One load run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// The moment from which the records count, by this machine's clock.
    pub began: Timestamp,
    /// Base URL of the requests.
    pub entry: String,
    /// Their Host header.
    pub host: String,
    /// Their method and path.
    pub request: String,
    /// Where the app lives.
    pub namespace: String,
    /// The plan in one line.
    pub plan: String,
    /// The protection that was taken away, where one was.
    #[serde(default)]
    pub without: Option<String>,
    /// Moments at which something was done to the cluster.
    #[serde(default)]
    pub marks: Vec<Mark>,
    /// How it ended; nothing while it runs, or when it was killed.
    #[serde(default)]
    pub end: Option<End>,
}

/// A disturbance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Requests in the schedule.
    pub scheduled: u64,
    /// How they ended.
    pub buckets: Buckets,
    /// Milliseconds from when each was due.
    pub latency_ms: Latency,
    /// Milliseconds from when each was sent.
    pub sent_latency_ms: Latency,
    /// Milliseconds by which requests were sent later than they could have been.
    pub lag_ms: Latency,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Share of the time that the generator computed, 0 to 1.
    pub own_cpu: f64,
    /// What was not seen of the cluster meanwhile.
    pub gaps: Vec<String>,
}

impl Meta {
    /// Keeps it in the run's folder.
    ///
    /// # Errors
    /// When that can't be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let (fresh, path) = (dir.join(".load.json"), dir.join(FILE));
        let text = serde_json::to_vec_pretty(self).context("writing the run down")?;
        std::fs::write(&fresh, text).with_context(|| format!("writing {}", fresh.display()))?;
        std::fs::rename(&fresh, &path).with_context(|| format!("writing {}", path.display()))
    }

    /// Reads it from a run's folder.
    ///
    /// # Errors
    /// When there is none, or it is not whole.
    pub fn read(dir: &Path) -> Result<Meta> {
        let path = dir.join(FILE);
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
    }
}
