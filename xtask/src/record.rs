//! What a run writes into its folder, and reads back to explain itself: what was asked for, what the witness saw of the
//! cluster meanwhile, and what it all came to; of a load, the requests too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::commands::Advice;
use crate::failure::{Attach as _, Exit};

pub mod access;
pub mod case;
pub mod meta;
pub mod proof;
pub mod run;
pub mod spread;
pub mod tail;
pub mod timeline;

/// The requests, one a line.
pub const RECORDS: &str = "records.jsonl";
/// The cluster's changes, one object a line.
pub const TIMELINE: &str = "timeline.jsonl";
/// Logs of the ingress controller's pods, the access log among them, each line behind the node's timestamp.
pub const INGRESS_LOGS: &str = "logs/ingress";
/// The app's logs, likewise.
pub const APP_LOGS: &str = "logs/app";
/// The commands whose runs are explained where none is named.
const ABOUT_APP: [&str; 4] = ["up", "redeploy", "smoke", "load"];
/// The report.
pub const REPORT: &str = "report.html";

/// A moment so much later, or the last one there is. The times of records and objects are of others' making: a sum of
/// them may be beyond the calendar.
#[must_use]
pub fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
}

/// A moment so much earlier, or the first one there is.
#[must_use]
pub fn earlier(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_sub(by).unwrap_or(at)
}

/// Keeps what a run says of itself in a file of its folder; who reads that meanwhile finds the old one or the new one.
fn keep(dir: &Path, file: &str, value: &impl Serialize) -> Result<()> {
    let (fresh, path) = (dir.join(format!(".{file}")), dir.join(file));
    let text = serde_json::to_vec_pretty(value).context("writing the run down")?;
    std::fs::write(&fresh, text).with_context(|| format!("writing {}", fresh.display()))?;
    std::fs::rename(&fresh, &path).with_context(|| format!("writing {}", path.display()))
}

/// What [`keep`] has left there.
fn kept<T: DeserializeOwned>(dir: &Path, file: &str) -> Result<T> {
    let path = dir.join(file);
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
}

/// One line of the timeline: an object as it was seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen<T = Value> {
    /// When we saw it, by this machine's clock.
    pub at: Timestamp,
    /// Its kind.
    pub kind: String,
    /// Whether it was gone then; the object is as it was last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// The object.
    pub object: T,
}

/// Whether a folder is that of a load run; one whose records are lost is one all the same.
pub fn is_load(dir: &Path) -> bool {
    [meta::FILE, RECORDS].iter().any(|file| dir.join(file).is_file())
}

/// What the witness of a run saw, in order, of that up to a moment; and what of it can't be read.
pub fn seen(dir: &Path, until: Option<Timestamp>) -> (Vec<Seen>, Vec<String>) {
    let (mut seen, mut damaged) = (Vec::new(), 0_u64);
    let read = for_each_line(&dir.join(TIMELINE), |line| match serde_json::from_str::<Seen>(line) {
        Ok(change) if until.is_some_and(|until| change.at > until) => {}
        Ok(change) => seen.push(change),
        Err(_) => damaged += 1,
    });
    let mut missing: Vec<_> = read.err().iter().map(|error| format!("evidence: {error:#}")).collect();
    if damaged > 0 {
        missing.push(format!("{damaged} changes of the cluster: their lines of {TIMELINE} are damaged"));
    }
    (seen, missing)
}

/// The files of a run's folder that its verdicts are read from, with their sizes in bytes.
pub fn sizes(dir: &Path) -> BTreeMap<String, u64> {
    let logs = [INGRESS_LOGS, APP_LOGS].into_iter().flat_map(|folder| {
        let entries = std::fs::read_dir(dir.join(folder)).into_iter().flatten().flatten();
        entries.map(move |entry| format!("{folder}/{}", entry.file_name().to_string_lossy()))
    });
    let names = [RECORDS, TIMELINE].map(str::to_owned).into_iter().chain(logs);
    names.filter_map(|name| Some((name.clone(), dir.join(name).metadata().ok()?.len()))).collect()
}

/// The folder of a load run: by path, by name, or the newest that has records.
///
/// # Errors
/// When there is no such run; exit code 2.
pub fn find(runs: &Path, name: Option<&str>) -> Result<PathBuf> {
    let latest = runs.join("latest");
    if let Some(name) = name.filter(|name| *name != "latest" || is_load(&latest)) {
        let dir = [runs.join(name), PathBuf::from(name)].into_iter().find(|dir| is_load(dir));
        return dir
            .ok_or_else(|| anyhow!("there is no load run `{name}`"))
            .hint(format!("the runs are in {}", runs.display()))
            .exit(Exit::Usage);
    }
    let entries = std::fs::read_dir(runs).into_iter().flatten().flatten();
    let newest = entries
        .map(|entry| entry.path())
        .filter(|path| !path.is_symlink() && is_load(path))
        // Their names begin with the time.
        .max();
    newest
        .ok_or_else(|| anyhow!("there is no load run in {}", runs.display()))
        .hint(Advice::Xtask("load", "makes one"))
        .exit(Exit::Usage)
}

/// The folder of a run of any kind: by path, by name, or the newest that had to do with the app.
///
/// # Errors
/// When there is no such run; exit code 2.
pub fn find_any(runs: &Path, name: Option<&str>) -> Result<PathBuf> {
    let is_run = |dir: &Path| is_load(dir) || dir.join(run::FILE).is_file();
    if let Some(name) = name.filter(|name| *name != "latest" || is_run(&runs.join("latest"))) {
        let dir = [runs.join(name), PathBuf::from(name)].into_iter().find(|dir| is_run(dir));
        return dir
            .ok_or_else(|| anyhow!("there is no run `{name}`"))
            .hint(format!("the runs are in {}", runs.display()))
            .exit(Exit::Usage);
    }
    let is_about_app = |dir: &Path| {
        is_load(dir) || run::Asked::read(dir).is_ok_and(|asked| ABOUT_APP.contains(&asked.command.as_str()))
    };
    let entries = std::fs::read_dir(runs).into_iter().flatten().flatten();
    let mut dirs: Vec<_> = entries.map(|entry| entry.path()).filter(|path| !path.is_symlink()).collect();
    dirs.sort_unstable();
    let newest = dirs.into_iter().rev().find(|dir| is_about_app(dir));
    newest
        .ok_or_else(|| anyhow!("there is no run in {}", runs.display()))
        .hint(Advice::Xtask("up", "makes one"))
        .exit(Exit::Usage)
}

/// Takes each line of a file.
///
/// # Errors
/// When it can't be read.
pub fn for_each_line(path: &Path, mut take: impl FnMut(&str)) -> Result<()> {
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
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
