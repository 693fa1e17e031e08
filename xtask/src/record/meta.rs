//! What a run keeps of itself, and what it came to: `load.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::Result;
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
    /// Milliseconds from when each was due; nothing where none was answered.
    pub latency_ms: Option<Latency>,
    /// Milliseconds from when each was sent; nothing where none was answered.
    pub sent_latency_ms: Option<Latency>,
    /// Milliseconds by which requests were sent later than they could have been.
    pub lag_ms: Latency,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Share of the time that the generator computed, 0 to 1.
    pub own_cpu: f64,
    /// What was not seen of the cluster meanwhile, or not written down.
    pub gaps: Vec<String>,
    /// Every condition, as it was measured.
    #[serde(default)]
    pub thresholds: Vec<Judged>,
    /// Why the run says nothing about the server, where that is so.
    #[serde(default)]
    pub invalid: Option<String>,
    /// Whether it was stopped before its end.
    #[serde(default)]
    pub interrupted: bool,
    /// The files that its verdicts are read from, with their sizes in bytes.
    #[serde(default)]
    pub files: BTreeMap<String, u64>,
}

/// One condition of a run, and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// As it was asked for: `p99<800ms`.
    pub threshold: String,
    /// The measured value; nothing where there was nothing to measure.
    pub value: Option<f64>,
    /// Its unit, as it is written behind a number.
    pub unit: String,
    /// Whether the condition is met.
    pub met: bool,
}

impl Judged {
    /// `✓` or `✗`.
    pub fn mark(&self) -> &'static str {
        if self.met { "✓" } else { "✗" }
    }

    /// The measured value with its unit, or a dash.
    pub fn measured(&self) -> String {
        self.value.map_or_else(
            || "–".to_owned(),
            |value| format!("{}{}", (value * 100.0).round() / 100.0, self.unit),
        )
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (measured {})", self.threshold, self.measured())
    }
}

/// What a run comes to. The box, the report, `explain`, the JSON summary and the exit code all say the same.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every condition is met.
    Passed,
    /// These are not, in words.
    Failed(String),
    /// It says nothing about the server, for this reason.
    Invalid(String),
    /// It was stopped before its end.
    Interrupted,
}

impl Verdict {
    /// In one word.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Failed(_) => "failed",
            Verdict::Invalid(_) => "invalid",
            Verdict::Interrupted => "interrupted",
        }
    }

    /// `✓` for a run that passed, else `✗`.
    pub fn mark(&self) -> &'static str {
        if *self == Verdict::Passed { "✓" } else { "✗" }
    }
}

impl End {
    /// Percent of the scheduled requests that succeeded.
    pub fn success_rate(&self) -> Option<f64> {
        (self.scheduled > 0).then(|| self.buckets.ok as f64 * 100.0 / self.scheduled as f64)
    }

    /// Successes a second.
    pub fn throughput(&self) -> f64 {
        self.buckets.ok as f64 / self.seconds.max(1e-9)
    }

    /// What the run comes to.
    pub fn verdict(&self) -> Verdict {
        let missed: Vec<String> =
            self.thresholds.iter().filter(|judged| !judged.met).map(ToString::to_string).collect();
        let Buckets { ok, .. } = self.buckets;
        if self.interrupted {
            Verdict::Interrupted
        } else if let Some(why) = &self.invalid {
            Verdict::Invalid(why.clone())
        } else if !missed.is_empty() {
            Verdict::Failed(missed.join(", "))
        } else if ok == 0 && self.scheduled > 0 {
            Verdict::Failed("no request succeeded".to_owned())
        } else if self.thresholds.is_empty() && ok < self.scheduled {
            // A run of a time when its conditions were not kept.
            Verdict::Failed(format!("{} of {} requests", self.scheduled - ok, self.scheduled))
        } else {
            Verdict::Passed
        }
    }

    /// The verdict in one line, its mark first.
    pub fn headline(&self) -> String {
        let verdict = self.verdict();
        let (mark, word) = (verdict.mark(), verdict.word());
        let Buckets { ok, .. } = self.buckets;
        match &verdict {
            Verdict::Passed | Verdict::Interrupted => {
                format!("{mark} {word}: {ok} of {} requests succeeded", self.scheduled)
            }
            Verdict::Failed(why) | Verdict::Invalid(why) => format!("{mark} {word}: {why}"),
        }
    }
}

impl Meta {
    /// Keeps it in the run's folder.
    ///
    /// # Errors
    /// When that can't be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        super::keep(dir, FILE, self)
    }

    /// Reads it from a run's folder.
    ///
    /// # Errors
    /// When there is none, or it is not whole.
    pub fn read(dir: &Path) -> Result<Meta> {
        super::kept(dir, FILE)
    }
}
