//! The recorded run, as far as its failures need it: read from the run's folder, and from nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use xtask_load::record::Record;
use xtask_load::tally::Buckets;

use super::access::{self, Access};
use super::meta::Meta;
use super::tail::{self, Flights, Tail};
use super::timeline::Timeline;
use super::{APP_LOGS, INGRESS_LOGS, RECORDS, for_each_line};

/// Measurements from which a typical one is taken.
const SAMPLES: usize = 10_000;
/// What an ingress controller says when it takes up the routes and endpoints of the cluster.
const SYNCING: [&str; 3] = ["Initial sync", "backend reload required", "Backend successfully reloaded"];

/// What is known of a run's failures and slow answers.
#[derive(Clone, Debug)]
pub struct Case {
    /// The run.
    pub meta: Meta,
    /// The requests that failed.
    pub failures: Vec<Record>,
    /// The slowest of those that succeeded.
    pub tail: Tail,
    /// All of them, as far as they hold each other up.
    pub flights: Flights,
    /// How long pods take as a rule.
    pub typical: Typical,
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

/// Medians over a run, in milliseconds; of the answers that were logged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Typical {
    /// From the proxy's request to a pod to the pod's answer.
    pub pod_ms: f64,
    /// What the app itself says that it took.
    pub app_ms: f64,
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
    /// How long the app took, by its own word.
    pub took_ms: Option<f64>,
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
    /// Reads it from a run's folder; the slow answers are those that took `over` or longer.
    ///
    /// # Errors
    /// When what the run says of itself can't be read.
    pub fn read(dir: &Path, over: Option<Duration>) -> Result<Case> {
        Ok(Case::of(Meta::read(dir)?, dir, &[], over))
    }

    /// Reads what belongs to a run; what can't be read is named as missing. Where that is true of requests that failed,
    /// those that are `known` stand in.
    pub fn of(meta: Meta, dir: &Path, known: &[Record], over: Option<Duration>) -> Case {
        let mut case = Case {
            meta,
            failures: Vec::new(),
            tail: Tail::default(),
            flights: Flights::default(),
            typical: Typical::default(),
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
        case.read_records(&dir.join(RECORDS), over);
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
    fn read_records(&mut self, path: &Path, over: Option<Duration>) {
        let (mut buckets, mut damaged) = (Buckets::default(), 0_u64);
        let (mut failures, mut answers) = (Vec::new(), tail::Reader::default());
        let read = for_each_line(path, |line| {
            let Ok(record) = serde_json::from_str::<Record>(line) else {
                damaged += 1;
                return;
            };
            buckets.count(record.outcome);
            answers.take(&record);
            if record.is_failure() {
                failures.push(record);
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
        self.failures = failures;
        (self.tail, self.flights) = answers.finish(over);
    }

    /// What was seen of those requests.
    fn read_evidence(&mut self, dir: &Path) {
        let requests = self.failures.iter().chain(&self.tail.records);
        let ids: BTreeSet<String> = requests.map(|record| record.id.clone()).collect();
        let mut problems = Vec::new();
        let (mut pod_ms, mut app_ms) = (Vec::new(), Vec::new());
        if !ids.is_empty() {
            for (controller, path) in logs(&dir.join(INGRESS_LOGS)) {
                self.access_logs += 1;
                let take = |line: &str| pod_ms.extend(self.take_access(&controller, line, &ids));
                problems.extend(for_each_line(&path, take).err());
            }
            for (pod, path) in logs(&dir.join(APP_LOGS)) {
                let take = |line: &str| {
                    let is_sampled = app_ms.len() < SAMPLES;
                    app_ms.extend(self.take_app(&pod, line, &ids, is_sampled));
                };
                problems.extend(for_each_line(&path, take).err());
            }
        }
        self.typical = Typical { pod_ms: median(pod_ms), app_ms: median(app_ms) };
        let (seen, missing) = super::seen(dir, None);
        self.timeline = Timeline::new(seen);
        self.missing.extend(problems.iter().map(|error| format!("evidence: {error:#}")));
        self.missing.extend(missing);
    }

    /// Takes a line of an access log; gives back how long the pod took that answered, in milliseconds.
    fn take_access(&mut self, controller: &str, line: &str, ids: &BTreeSet<String>) -> Option<f64> {
        if let Some(access) = access::parse(controller, line) {
            let took = access.attempts.last().and_then(|attempt| attempt.seconds).map(|s| s * 1e3);
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
            return took;
        }
        if let (Some(at), line) = access::stamped(line) {
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
        None
    }

    /// Takes a line of a pod's log. Gives back how long the app took, in milliseconds, where that is asked for.
    fn take_app(&mut self, pod: &str, line: &str, ids: &BTreeSet<String>, is_sampled: bool) -> Option<f64> {
        let (_, line) = access::stamped(line);
        let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let words = || line.split(|c| !is_inner(c));
        // Most lines are about none of these requests: they need not be read as what they are.
        if !is_sampled && !words().any(|word| ids.contains(word)) {
            return None;
        }
        let fields: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap_or_default();
        // A line that names its request is about no other, whatever else it quotes.
        let named = fields.get("request_id").and_then(|id| id.as_str());
        let took_ms = fields.get("duration_ms").and_then(serde_json::Value::as_f64);
        let sample = took_ms.filter(|_| is_sampled && named.is_some());
        let mut words = words().filter(|_| named.is_none()).chain(named);
        let Some(id) = words.find(|word| ids.contains(*word)) else { return sample };
        let line = AppLine {
            pod: pod.to_owned(),
            line: line.to_owned(),
            status: fields.get("status").and_then(serde_json::Value::as_u64).and_then(|n| n.try_into().ok()),
            code: fields.get("error_code").and_then(|code| code.as_str()).map(str::to_owned),
            took_ms,
        };
        let lines = self.app.entry(id.to_owned()).or_default();
        if !lines.contains(&line) {
            lines.push(line);
        }
        sample
    }

    /// A moment of a record, by the clock on the wall.
    pub fn wall(&self, since_began_us: u64) -> Timestamp {
        let since = SignedDuration::from_micros(i64::try_from(since_began_us).unwrap_or(i64::MAX));
        self.meta.began.checked_add(since).unwrap_or(self.meta.began)
    }
}

/// The middle one; 0 of none.
fn median(mut numbers: Vec<f64>) -> f64 {
    let middle = numbers.len() / 2;
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(middle).copied().unwrap_or_default()
}

/// The log files of a folder, each with the pod's name; none where the folder is missing.
fn logs(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = |path: PathBuf| Some((path.file_stem()?.to_string_lossy().into_owned(), path));
    let mut logs: Vec<_> = entries.filter_map(named).collect();
    logs.sort();
    logs
}
