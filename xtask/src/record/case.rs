//! The recorded run, as far as its failures need it: read from the run's folder, and from nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use xtask_load::record::Record;
use xtask_load::tally::Buckets;

use super::access::{self, Access};
use super::meta::Meta;
use super::timeline::Timeline;
use super::{APP_LOGS, INGRESS_LOGS, RECORDS, TIMELINE, for_each_line};

/// An answer that took this long may be one that a first pod did not give.
const SLOW_US: u64 = 1_000_000;
/// Slow answers that are looked at.
const MOST_SLOW: usize = 10_000;
/// What an ingress controller says when it takes up the routes and endpoints of the cluster.
const SYNCING: [&str; 3] = ["Initial sync", "backend reload required", "Backend successfully reloaded"];

/// What is known of a run's failures.
#[derive(Clone, Debug)]
pub struct Case {
    /// The run.
    pub meta: Meta,
    /// The requests that failed.
    pub failures: Vec<Record>,
    /// Requests that succeeded, but slowly.
    pub slow: Vec<Record>,
    /// The access log's lines of those, by id.
    pub access: HashMap<String, Vec<Access>>,
    /// The app's lines of those, by id.
    pub app: HashMap<String, Vec<AppLine>>,
    /// The proxy's own complaints about a pod, by `address:port`.
    pub complaints: HashMap<String, Vec<Message>>,
    /// What each controller said about its syncing, in order of time, by its pod.
    pub syncs: HashMap<String, Vec<Message>>,
    /// When the proxy was done with a request at each `address:port`.
    pub uses: HashMap<String, BTreeSet<Timestamp>>,
    /// Pods, endpoints, events.
    pub timeline: Timeline,
    /// How many access logs were recorded.
    pub access_logs: usize,
    /// What the run should have left, and is not there.
    pub missing: Vec<String>,
}

/// A line of the app's log.
#[derive(Clone, Debug, PartialEq)]
pub struct AppLine {
    /// The pod that wrote it.
    pub pod: String,
    /// The line.
    pub line: String,
    /// The status it tells, where it does.
    pub status: Option<u16>,
    /// The error code it tells, where it does.
    pub code: Option<String>,
}

/// A line of the proxy's own, which is about no single request.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// When it was written.
    pub at: Timestamp,
    /// The line.
    pub line: String,
}

impl Case {
    /// Reads it from a run's folder.
    ///
    /// # Errors
    /// When what the run says of itself can't be read.
    pub fn read(dir: &Path) -> Result<Case> {
        Ok(Case::of(Meta::read(dir)?, dir, &[]))
    }

    /// Reads what belongs to a run; what can't be read is named as missing. Where that is true of requests that failed,
    /// those that are `known` stand in.
    pub fn of(meta: Meta, dir: &Path, known: &[Record]) -> Case {
        let mut case = Case {
            meta,
            failures: Vec::new(),
            slow: Vec::new(),
            access: HashMap::new(),
            app: HashMap::new(),
            complaints: HashMap::new(),
            syncs: HashMap::new(),
            uses: HashMap::new(),
            timeline: Timeline::default(),
            access_logs: 0,
            missing: Vec::new(),
        };
        case.compare_files(dir);
        case.read_records(&dir.join(RECORDS));
        if case.failures.len() < known.len() {
            case.failures = known.to_vec();
        }
        case.read_evidence(dir);
        case
    }

    /// Each file is there, as long as the run left it.
    fn compare_files(&mut self, dir: &Path) {
        let now = super::sizes(dir);
        let Some(end) = &self.meta.end else {
            self.missing.push("how the run ended: it was killed, or is still under way".to_owned());
            return;
        };
        let missing = end.files.iter().filter_map(|(name, size)| match now.get(name) {
            None => Some(format!("{name}, which is gone")),
            Some(now) if now != size => Some(format!("parts of {name}: it has {now} bytes, and had {size}")),
            Some(_) => None,
        });
        self.missing.extend(missing);
    }

    /// The failures and the slow answers, counted and compared with what the run counted itself.
    fn read_records(&mut self, path: &Path) {
        let (mut buckets, mut damaged) = (Buckets::default(), 0_u64);
        let (mut failures, mut slow) = (Vec::new(), Vec::new());
        let read = for_each_line(path, |line| {
            let Ok(record) = serde_json::from_str::<Record>(line) else {
                damaged += 1;
                return;
            };
            buckets.count(record.outcome);
            let took_us = record.end_us.saturating_sub(record.sent_us.unwrap_or(record.end_us));
            if record.is_failure() {
                failures.push(record);
            } else if took_us >= SLOW_US && slow.len() < MOST_SLOW {
                slow.push(record);
            }
        });
        self.missing.extend(read.err().map(|error| format!("the requests: {error:#}")));
        if damaged > 0 {
            self.missing.push(format!("{damaged} requests: their lines of {RECORDS} are damaged"));
        }
        if let Some(end) = self.meta.end.as_ref().filter(|end| end.buckets != buckets) {
            self.missing.push(format!(
                "requests: {RECORDS} holds {} of {} ({} of {} failures)",
                buckets.sum(),
                end.scheduled,
                buckets.failed(),
                end.buckets.failed()
            ));
        }
        (self.failures, self.slow) = (failures, slow);
    }

    /// What was seen of those requests.
    fn read_evidence(&mut self, dir: &Path) {
        let requests = self.failures.iter().chain(&self.slow);
        let ids: BTreeSet<String> = requests.map(|record| record.id.clone()).collect();
        let mut problems = Vec::new();
        if !ids.is_empty() {
            for (controller, path) in logs(&dir.join(INGRESS_LOGS)) {
                self.access_logs += 1;
                problems.extend(for_each_line(&path, |line| self.take_access(&controller, line, &ids)).err());
            }
            for (pod, path) in logs(&dir.join(APP_LOGS)) {
                problems.extend(for_each_line(&path, |line| self.take_app(&pod, line, &ids)).err());
            }
        }
        let (mut seen, mut damaged) = (Vec::new(), 0_u64);
        let read = for_each_line(&dir.join(TIMELINE), |line| match serde_json::from_str(line) {
            Ok(change) => seen.push(change),
            Err(_) => damaged += 1,
        });
        problems.extend(read.err());
        self.timeline = Timeline::new(seen);
        self.missing.extend(problems.iter().map(|error| format!("evidence: {error:#}")));
        if damaged > 0 {
            self.missing
                .push(format!("{damaged} changes of the cluster: their lines of {TIMELINE} are damaged"));
        }
    }

    /// Takes a line of an access log.
    pub fn take_access(&mut self, controller: &str, line: &str, ids: &BTreeSet<String>) {
        if let Some(access) = access::parse(controller, line) {
            if let Some(at) = access.at {
                for attempt in &access.attempts {
                    self.uses.entry(attempt.address.clone()).or_default().insert(at);
                }
            }
            if ids.contains(access.id.as_str()) {
                let lines = self.access.entry(access.id.clone()).or_default();
                if !lines.contains(&access) {
                    lines.push(access);
                }
            }
        } else if let (Some(at), line) = access::stamped(line) {
            let message = Message { at, line: line.to_owned() };
            if let Some((_, rest)) = line.split_once("upstream: \"") {
                let url = rest.split('"').next().unwrap_or_default();
                let address = url.split_once("://").map_or(url, |(_, rest)| rest);
                let address = address.split('/').next().unwrap_or_default().to_owned();
                self.complaints.entry(address).or_default().push(message);
            } else if SYNCING.iter().any(|word| line.contains(word)) {
                self.syncs.entry(controller.to_owned()).or_default().push(message);
            }
        }
    }

    /// Takes a line of a pod's log.
    pub fn take_app(&mut self, pod: &str, line: &str, ids: &BTreeSet<String>) {
        let (_, line) = access::stamped(line);
        let fields: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap_or_default();
        // A line that names its request is about no other, whatever else it quotes.
        let named = fields.get("request_id").and_then(|id| id.as_str());
        let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let mut words = line.split(|c| !is_inner(c)).filter(|_| named.is_none()).chain(named);
        let Some(id) = words.find(|word| ids.contains(*word)) else { return };
        let line = AppLine {
            pod: pod.to_owned(),
            line: line.to_owned(),
            status: fields.get("status").and_then(serde_json::Value::as_u64).and_then(|n| n.try_into().ok()),
            code: fields.get("error_code").and_then(|code| code.as_str()).map(str::to_owned),
        };
        let lines = self.app.entry(id.to_owned()).or_default();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }

    /// A moment of a record, by the clock on the wall.
    pub fn wall(&self, since_began_us: u64) -> Timestamp {
        let since = SignedDuration::from_micros(i64::try_from(since_began_us).unwrap_or(i64::MAX));
        self.meta.began.checked_add(since).unwrap_or(self.meta.began)
    }
}

/// The log files of a folder, each with the pod's name; none where the folder is missing.
fn logs(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = |path: PathBuf| Some((path.file_stem()?.to_string_lossy().into_owned(), path));
    let mut logs: Vec<_> = entries.filter_map(named).collect();
    logs.sort();
    logs
}
