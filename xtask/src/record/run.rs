//! A run of any command, as its folder tells it: what was asked for and where (`run.json`), and what became of it, step
//! by step (`events.jsonl`).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::proof::Proof;
use super::spread::Spread;
use super::{for_each_line, later};
use crate::failure::STOPPED;
use crate::output::{Event, Kind, State};

/// The file in the run's folder that says what was asked for.
pub const FILE: &str = "run.json";
/// The file in the run's folder that has its events, one a line; the last is the summary.
pub const EVENTS: &str = "events.jsonl";
/// Waits of one step that are kept, the last ones: a line that counts seconds changes with each.
const MOST_WAITS: usize = 200;
/// What takes fewer seconds is not worth a word.
const LEAST: f64 = 0.05;
/// Two moments of one event log that are the same one, rounded.
const SAME: f64 = 0.002;

/// What was asked for, and where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The command's name.
    pub command: String,
    /// The command line, ready to be pasted; values that may be secret are left out.
    pub line: String,
    /// When the run began, by this machine's clock.
    pub began: Timestamp,
    /// Where it ran.
    #[serde(default)]
    pub environment: Environment,
    /// What was not seen of the cluster meanwhile, or not written down.
    #[serde(default)]
    pub gaps: Vec<String>,
    /// The files that were recorded, with their sizes in bytes; nothing before the run's end.
    #[serde(default)]
    pub files: Option<BTreeMap<String, u64>>,
}

/// Where a run took place: what else may make a difference between two of them. What is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of this tool.
    #[serde(default)]
    pub version: String,
    /// The commit that is checked out.
    #[serde(default)]
    pub commit: Option<String>,
    /// Whether nothing differed from that commit.
    #[serde(default)]
    pub is_clean: Option<bool>,
    /// This machine: system, processor, how many of them.
    #[serde(default)]
    pub machine: String,
    /// The kind of cluster, and its context.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Version of its API server.
    #[serde(default)]
    pub kubernetes: Option<String>,
    /// Its nodes: how many, their CPUs and memory, and the container runtime.
    #[serde(default)]
    pub nodes: Option<String>,
    /// The namespace.
    #[serde(default)]
    pub namespace: String,
    /// The model's weights.
    #[serde(default)]
    pub weights: Option<String>,
}

impl Asked {
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
    pub fn read(dir: &Path) -> Result<Asked> {
        super::kept(dir, FILE)
    }
}

/// One step or gate, as the events tell it. Times are seconds since the run began.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Step or gate.
    pub kind: Kind,
    /// How it ended; `Start` while it is under way.
    pub state: State,
    /// When it began.
    pub start: f64,
    /// When it ended; nothing while it is under way.
    pub end: Option<f64>,
    /// What came of it, or why not.
    pub detail: String,
    /// What was awaited before it began, by name.
    pub waited_for: Vec<String>,
    /// What it said that it was waiting for or doing, and when.
    pub waits: Vec<(f64, String)>,
    /// Whether it is one of those that decided how long the run took.
    pub is_critical: bool,
}

impl Step {
    /// `gate rollout`, `step image`.
    pub fn title(&self) -> String {
        format!("{} {}", if self.kind == Kind::Gate { "gate" } else { "step" }, self.name)
    }

    /// Whether it ended well.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done | State::Already)
    }

    /// Whether it failed by itself, and not because something else had.
    pub fn has_failed(&self) -> bool {
        self.state == State::Failed && !self.was_stopped()
    }

    /// Whether it was still under way when the run was told to stop.
    pub fn was_stopped(&self) -> bool {
        self.state == State::Failed && self.detail.ends_with(STOPPED)
    }

    /// Whether it was under way at a moment.
    pub fn is_under_way(&self, at: f64) -> bool {
        self.start <= at && self.end.is_none_or(|end| at < end)
    }

    /// Whether it took a time that anyone waits.
    pub fn is_waited_for(&self) -> bool {
        self.end.is_none_or(|end| end - self.start >= LEAST)
    }

    /// What it said last by a moment.
    pub fn wait_at(&self, at: f64) -> Option<&str> {
        self.waits.iter().rev().find(|(said, _)| *said <= at).map(|(_, wait)| wait.as_str())
    }
}

/// A run, as far as its folder tells.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The folder's name.
    pub name: String,
    /// What was asked for.
    pub asked: Asked,
    /// Its steps and gates, in the order in which they began.
    pub steps: Vec<Step>,
    /// Warnings: when, of which step, and what.
    pub warnings: Vec<(f64, String, String)>,
    /// The last line of its events; nothing while it runs, or when it was killed.
    pub summary: Option<Map<String, Value>>,
    /// From its beginning to the last thing that is known of it.
    pub seconds: f64,
    /// What its folder should hold, and does not.
    pub missing: Vec<String>,
}

impl Run {
    /// Reads it; of a run that is ending, `summary` is what its events will end with.
    pub fn read(dir: &Path, summary: Option<Map<String, Value>>) -> Run {
        let name =
            dir.canonicalize().ok().and_then(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()));
        let mut run = Run { name: name.unwrap_or_default(), summary, ..Run::default() };
        match Asked::read(dir) {
            Ok(asked) => run.asked = asked,
            Err(error) => run.missing.push(format!("what was asked for: {error:#}")),
        }
        let read = for_each_line(&dir.join(EVENTS), |line| run.take(line));
        run.missing.extend(read.err().map(|error| format!("the events: {error:#}")));
        if run.summary.is_none() {
            run.missing.push("how the run ended: it was killed, or is still under way".to_owned());
        }
        let now = super::sizes(dir);
        let lost = run.asked.files.iter().flatten().filter(|(name, size)| now.get(*name) != Some(*size));
        run.missing.extend(lost.map(|(name, size)| match now.get(name) {
            None => format!("{name}, which is gone"),
            Some(now) => format!("parts of {name}: it has {now} bytes, and had {size}"),
        }));
        run.learn_from_summary();
        run
    }

    fn take(&mut self, line: &str) {
        if let Ok(event) = serde_json::from_str::<Event>(line) {
            self.seconds = self.seconds.max(event.at_seconds);
            self.event(event);
        } else if let Ok(Value::Object(fields)) = serde_json::from_str(line)
            && fields.get("event").is_some_and(|event| event == "summary")
        {
            self.summary = Some(fields);
        }
    }

    fn event(&mut self, event: Event) {
        let Event { kind, name, state, detail, at_seconds: at, seconds, .. } = event;
        let start = at - seconds;
        if kind == Kind::Warning {
            return self.warnings.push((at, name, detail));
        }
        if state == State::Start && kind != Kind::Progress {
            let (waited_for, waits) = (Vec::new(), Vec::new());
            let step =
                Step { name, kind, state, start, end: None, detail, waited_for, waits, is_critical: false };
            return self.steps.push(step);
        }
        // Of two of one name at a time, the one that began then.
        let same = |step: &&mut Step| {
            step.name == name && step.end.is_none() && (kind == Kind::Progress || step.kind == kind)
        };
        let near = |step: &&mut Step| (step.start - start).abs() < SAME;
        let found = match self.steps.iter_mut().filter(same).find(near) {
            Some(step) => Some(step),
            None => self.steps.iter_mut().find(same),
        };
        let Some(step) = found else { return };
        if state == State::Wait {
            if step.waits.len() == MOST_WAITS {
                step.waits.remove(0);
            }
            step.waits.push((at, detail));
        } else {
            (step.state, step.detail, step.end) = (state, detail, Some(at));
        }
    }

    /// What each step waited for, and which of them took the time.
    fn learn_from_summary(&mut self) {
        let Some(summary) = &self.summary else { return };
        let list = |name: &str| summary.get(name).and_then(Value::as_array).into_iter().flatten();
        // The loads of a proof each have their own steps, counted from their own beginning.
        if summary.contains_key("prove") {
            self.steps.clear();
            self.seconds = summary.get("seconds").and_then(Value::as_f64).unwrap_or(self.seconds);
        }
        // The summary has them in the order in which they began, as the events do.
        for (step, told) in self.steps.iter_mut().zip(list("steps")) {
            if told["name"] == step.name {
                let names = told["waited_for"].as_array().into_iter().flatten();
                step.waited_for = names.filter_map(|name| Some(name.as_str()?.to_owned())).collect();
            }
        }
        let mut rest = self.steps.iter_mut();
        for name in list("critical_path") {
            if let Some(step) = rest.find(|step| name == &step.name) {
                step.is_critical = true;
            }
        }
    }

    /// A moment of the run, by the clock on the wall.
    pub fn wall(&self, seconds: f64) -> Timestamp {
        later(self.asked.began, SignedDuration::try_from_secs_f64(seconds).unwrap_or_default())
    }

    /// A moment on the wall, in seconds since the run began.
    pub fn since(&self, at: Timestamp) -> f64 {
        at.duration_since(self.asked.began).as_secs_f64()
    }

    /// The exit code; nothing where the run's end is not known.
    pub fn exit_code(&self) -> Option<u64> {
        self.summary.as_ref()?.get("exit_code")?.as_u64()
    }

    /// A text of the summary.
    pub fn told(&self, field: &str) -> Option<&str> {
        self.summary.as_ref()?.get(field)?.as_str()
    }

    /// The step or gate that failed first by itself.
    pub fn failed(&self) -> Option<&Step> {
        let failed = self.steps.iter().filter(|step| step.has_failed());
        failed.min_by(|a, b| a.end.unwrap_or(f64::MAX).total_cmp(&b.end.unwrap_or(f64::MAX)))
    }

    /// What was under way when the run was stopped, or when its records end.
    pub fn unfinished(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.end.is_none() || step.was_stopped())
    }

    /// Headings with lines, as the failure brought them along.
    pub fn evidence(&self) -> Vec<(String, Vec<String>)> {
        let evidence = self.summary.as_ref().and_then(|summary| summary.get("evidence"));
        evidence.and_then(|evidence| serde_json::from_value(evidence.clone()).ok()).unwrap_or_default()
    }

    /// What each protection is worth, where that was measured.
    pub fn proof(&self) -> Option<Proof> {
        self.part("prove")
    }

    /// How far the runs of the same load are apart, where there were several.
    pub fn spread(&self) -> Option<Spread> {
        self.part("repeat")
    }

    fn part<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        T::deserialize(self.summary.as_ref()?.get(field)?).ok()
    }

    /// Whether it came to what was asked for.
    pub fn is_good(&self) -> bool {
        self.exit_code() == Some(0)
    }

    /// The verdict in one line, its mark first.
    pub fn headline(&self) -> String {
        let Asked { command, .. } = &self.asked;
        let seconds = self.seconds;
        let under_way = || {
            let names: Vec<_> = self.unfinished().map(Step::title).collect();
            if names.is_empty() { String::new() } else { format!(" in {}", names.join(", ")) }
        };
        let Some(code) = self.exit_code() else {
            return format!(
                "✗ {command}: killed, or still under way; its records end after {seconds:.1} s{}",
                under_way()
            );
        };
        let error = self.told("error").unwrap_or_default();
        let first = error.lines().next().unwrap_or_default();
        match (code, self.failed()) {
            (0, _) => match (self.proof(), self.spread()) {
                (Some(proof), _) => format!("✓ {command}: {}", proof.headline()),
                (_, Some(spread)) => format!("✓ {command}: {}", spread.headline()),
                (None, None) => format!("✓ {command}: done in {seconds:.1} s"),
            },
            (130, _) => format!("✗ {command}: interrupted after {seconds:.1} s{}", under_way()),
            (_, Some(step)) => {
                let why = first.strip_prefix(&format!("{}: ", step.title())).unwrap_or(first);
                format!("✗ {} failed: {why}", step.title())
            }
            (_, None) => format!("✗ {command} failed: {first}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, name: &str, state: &str, at: f64, seconds: f64, detail: &str) -> Value {
        json!({
            "event": kind, "name": name, "state": state, "detail": detail, "at_seconds": at,
            "seconds": seconds,
        })
    }

    fn read(lines: &[Value]) -> Run {
        let dir = tempfile::tempdir().expect("a folder");
        let asked = Asked { command: "up".into(), ..Asked::default() };
        asked.write(dir.path()).expect("writing");
        let text: Vec<_> = lines.iter().map(ToString::to_string).collect();
        std::fs::write(dir.path().join(EVENTS), text.join("\n")).expect("writing");
        Run::read(dir.path(), None)
    }

    #[test]
    fn steps_of_one_name_are_told_apart_and_the_path_is_marked() {
        let run = read(&[
            event("step", "cluster", "start", 0.0, 0.0, ""),
            event("step", "cluster", "done", 1.0, 1.0, "started"),
            event("gate", "cluster", "start", 1.0, 0.0, ""),
            event("gate", "web", "start", 1.5, 0.0, ""),
            event("gate", "web", "start", 2.0, 0.0, ""),
            event("gate", "web", "wait", 2.5, 1.0, "of the first"),
            event("progress", "web", "wait", 2.6, 0.6, "of the second"),
            event("gate", "web", "done", 3.0, 1.0, "the second"),
            event("gate", "web", "failed", 4.0, 2.5, "it crashed"),
            event("gate", "cluster", "failed", 4.1, 3.1, "watching: stopped before it finished"),
            json!({
                "event": "summary", "exit_code": 30, "error": "gate web: it crashed\nmore",
                "steps": [{"name": "cluster"}, {"name": "cluster", "waited_for": ["cluster"]}],
                "critical_path": ["cluster", "web"],
            }),
        ]);
        let [step, gate, first, second] = &run.steps[..] else { panic!("{:?}", run.steps) };
        assert_eq!((step.end, gate.waited_for.as_slice()), (Some(1.0), &["cluster".to_owned()][..]));
        assert_eq!((first.wait_at(9.0), first.detail.as_str()), (Some("of the first"), "it crashed"));
        assert_eq!((second.wait_at(9.0), second.detail.as_str()), (Some("of the second"), "the second"));
        assert_eq!(
            run.steps.iter().map(|step| step.is_critical).collect::<Vec<_>>(),
            [true, false, true, false]
        );
        assert_eq!(run.headline(), "✗ gate web failed: it crashed");
        assert_eq!(run.unfinished().map(Step::title).collect::<Vec<_>>(), ["gate cluster"]);
    }

    #[test]
    fn a_run_that_was_killed_says_what_was_under_way() {
        let run = read(&[event("gate", "rollout", "start", 1.0, 0.0, "")]);
        assert_eq!(
            run.headline(),
            "✗ up: killed, or still under way; its records end after 1.0 s in gate rollout"
        );
        assert_eq!(run.missing, ["how the run ended: it was killed, or is still under way"]);
    }
}
