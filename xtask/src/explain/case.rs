//! The recorded run, as far as its failures need it: read from the run's folder, and from nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use xtask_load::record::Record;

use super::access::{self, Access};
use super::timeline::Timeline;
use crate::load::RECORDS;
use crate::load::meta::Meta;

/// What an ingress controller says when it takes up the routes and endpoints of the cluster.
const SYNCING: [&str; 3] = ["Initial sync", "backend reload required", "Backend successfully reloaded"];

/// What is known of a run's failures.
#[derive(Clone, Debug)]
pub struct Case {
    /// The run.
    pub meta: Meta,
    /// The requests that failed.
    pub failures: Vec<Record>,
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
    /// When the folder holds no load run.
    pub fn read(dir: &Path) -> Result<Case> {
        let meta = Meta::read(dir)?;
        let failures = failures(&dir.join(RECORDS))?;
        let ids: BTreeSet<&str> = failures.iter().map(|failure| failure.id.as_str()).collect();
        let mut case = Case {
            meta,
            access: HashMap::new(),
            app: HashMap::new(),
            complaints: HashMap::new(),
            syncs: HashMap::new(),
            uses: HashMap::new(),
            timeline: Timeline::default(),
            access_logs: 0,
            failures: Vec::new(),
        };
        if !ids.is_empty() {
            for (controller, path) in logs(&dir.join("logs/ingress"))? {
                case.access_logs += 1;
                for_each_line(&path, |line| case.take_access(&controller, line, &ids))?;
            }
            for (pod, path) in logs(&dir.join("logs/app"))? {
                for_each_line(&path, |line| case.take_app(&pod, line, &ids))?;
            }
            case.timeline = Timeline::read(dir)?;
        }
        case.failures = failures;
        Ok(case)
    }

    /// Takes a line of an access log.
    pub fn take_access(&mut self, controller: &str, line: &str, ids: &BTreeSet<&str>) {
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
    pub fn take_app(&mut self, pod: &str, line: &str, ids: &BTreeSet<&str>) {
        let (_, line) = access::stamped(line);
        let fields: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap_or_default();
        // A line that names its request is about no other, whatever else it quotes.
        let named = fields.get("request_id").and_then(|id| id.as_str());
        let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let mut words = line.split(|c| !is_inner(c)).filter(|_| named.is_none()).chain(named);
        let Some(id) = words.find(|word| ids.contains(word)) else { return };
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

fn failures(path: &Path) -> Result<Vec<Record>> {
    let mut failures = Vec::new();
    for_each_line(path, |line| {
        // Almost all lines are successes, and need not be read to the end.
        if !line.contains("\"outcome\":\"ok\"") {
            failures.extend(serde_json::from_str::<Record>(line).ok().filter(Record::is_failure));
        }
    })?;
    Ok(failures)
}

/// The log files of a folder, each with the pod's name; none where the folder is missing.
fn logs(dir: &Path) -> Result<Vec<(String, std::path::PathBuf)>> {
    let mut logs = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(logs) };
    for entry in entries {
        let path = entry.with_context(|| format!("listing {}", dir.display()))?.path();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        logs.extend(name.map(|name| (name, path)));
    }
    logs.sort();
    Ok(logs)
}

pub(super) fn for_each_line(path: &Path, mut take: impl FnMut(&str)) -> Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        // A log that was never written is evidence that is missing, not a fault.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.ends_with(RECORDS) => {
            return Ok(());
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length =
            reader.read_until(b'\n', &mut line).with_context(|| format!("reading {}", path.display()))?;
        if length == 0 {
            return Ok(());
        }
        take(String::from_utf8_lossy(&line).trim_end());
    }
}
