//! `cargo xtask explain`: how a run ended and why requests failed or were slow, from its records alone; needs no
//! cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use serde_json::json;
use xtask_load::tally::error_code;

use crate::commands::Advice;
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::options::{Format, duration};
use crate::record::case::Case;
use crate::record::meta::Meta;
use crate::record::timeline::Timeline;
use crate::record::{find, find_any, is_load};
use crate::summary::Summary;

mod failure;
mod judge;
pub mod mechanism;
pub mod moment;
pub mod pipeline;
mod proxy;
pub mod slowest;
pub mod tail;
mod unlogged;
mod upstream;

pub use failure::Verdict;
pub use judge::judge;
use mechanism::Mechanism;
use slowest::Slowest;

/// Verdicts that are spelled out in a JSON summary.
const MOST_IN_JSON: usize = 1000;
/// Requests of a group that are named; the JSON has all.
const MOST_NAMED: usize = 5;

/// Which run, and what of it.
#[derive(Args, Clone, Debug, Default)]
pub struct ExplainArgs {
    /// The run: its name or folder; the newest of up, redeploy, smoke and load without it.
    pub run: Option<String>,
    /// The request of a load: its id, or the start of it.
    pub request: Option<String>,
    /// Explain the slowest answers, with their evidence: those that took this long or longer; the worst 1 % and
    /// whatever stands out without it.
    #[arg(long, value_name = "THRESHOLD", num_args = 0..=1, default_missing_value = "")]
    pub slow: Option<String>,
    /// Say what was true at this moment: 12s after the first request or the run's beginning, or 14:03:07 by the clock.
    #[arg(long, value_name = "MOMENT", conflicts_with_all = ["request", "slow"])]
    pub at: Option<moment::At>,
}

impl ExplainArgs {
    /// The same, with what `--slow` was given by mistake as the run that it is: `--slow RUN`.
    fn settled(&self) -> (ExplainArgs, Option<Duration>) {
        match self.slow.as_deref().map(|text| (text, duration(text))) {
            None | Some(("", _)) => (self.clone(), None),
            Some((_, Ok(over))) => (self.clone(), Some(over)),
            Some((run, Err(_))) => {
                (ExplainArgs { run: Some(run.to_owned()), request: self.run.clone(), ..self.clone() }, None)
            }
        }
    }
}

/// A run and why its requests went as they did.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The run.
    pub meta: Meta,
    /// Why each failure failed.
    pub failures: Vec<Verdict>,
    /// Why the slowest answers were slow.
    pub slow: Slowest,
    /// What the cluster did meanwhile.
    pub timeline: Timeline,
    /// What of the run's records is not there, so that this is not all.
    pub missing: Vec<String>,
}

/// Explains how a run ended, its failures, its slowest answers, one request, or what was true at a moment.
///
/// # Errors
/// When there is no such run or request (exit code 2), or the run's records are not whole.
pub fn run(cx: &Cx, args: &ExplainArgs) -> Result<Summary> {
    let runs = cx.home().join("runs");
    let (args, over) = args.settled();
    let (run, request) = (args.run.as_deref(), args.request.as_deref());
    // Only a load has answers.
    let found = if args.slow.is_some() { find(&runs, run) } else { find_any(&runs, run) };
    let (dir, request) = match (found, run, request) {
        (Ok(dir), _, request) => (dir, request),
        // One word may be a request of the newest run.
        (Err(_), Some(word), None) if is_id(word) => (find(&runs, None)?, Some(word)),
        (Err(error), ..) => return Err(error),
    };
    if let Some(at) = args.at {
        return moment::run(cx, &dir, at);
    }
    if !is_load(&dir) {
        return pipeline::run(cx, &dir);
    }
    let mut explained = explain_run_over(&dir, over)
        .hint(Advice::Xtask("load", "makes a new one; a run this damaged can't be explained"))?;
    if let Some(request) = request {
        let is_asked_for = |verdict: &Verdict| verdict.record.id.starts_with(request);
        explained.failures.retain(is_asked_for);
        explained.slow.answers.retain(|slow| is_asked_for(&slow.verdict));
        if explained.failures.is_empty() && explained.slow.answers.is_empty() {
            return Err(anyhow!(
                "no request of {} that failed or was slow has an id that begins with `{request}`",
                dir.display()
            ))
            .hint("`cargo xtask explain --slow 0s RUN REQUEST` says where the time of any answer went")
            .exit(Exit::Usage);
        }
    }
    if cx.shared.output == Format::Human {
        cx.output.note(&format!("run {}", cx.short(&dir)));
        if let Some(failure) = pipeline::beside_load(&dir) {
            cx.output.data(&failure);
        }
        let text = match (request, &args.slow) {
            (Some(_), _) => requests_text(&explained),
            (None, Some(_)) if explained.slow.count == 0 => "no answer was as slow".to_owned(),
            (None, Some(_)) => explained.slow.text(),
            (None, None) => text(&explained),
        };
        cx.output.data(text.trim_end());
    }
    let mut summary = explained.json();
    summary.insert("run".into(), json!(dir));
    if explained.missing.is_empty() {
        return Ok(summary);
    }
    Err(anyhow!("the records of this run are incomplete; missing: {}", explained.missing.join("; ")))
        .attach(summary)
        .hint("the explanations above rest on the records that are left")
}

/// Whether a word may be how a request's id begins.
fn is_id(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The run in that folder, explained.
///
/// # Errors
/// When the folder does not say what run it is.
pub fn explain_run(dir: &Path) -> Result<Explained> {
    explain_run_over(dir, None)
}

/// The same; the slowest answers are those that took `over` or longer.
///
/// # Errors
/// As [`explain_run`].
pub fn explain_run_over(dir: &Path, over: Option<Duration>) -> Result<Explained> {
    Case::read(dir, over).map(explain).with_context(|| format!("reading the run {}", dir.display()))
}

/// The verdict on each failure of a case, and on each of its slowest answers.
pub fn explain(case: Case) -> Explained {
    let failures = case.failures.iter().map(|record| judge(&case, record)).collect();
    let slow = Slowest::of(&case);
    Explained { failures, slow, missing: case.missing, timeline: case.timeline, meta: case.meta }
}

impl Explained {
    /// Failures whose cause was not found.
    pub fn unexplained(&self) -> usize {
        self.failures.iter().filter(|verdict| verdict.is_unexplained()).count()
    }

    /// As it is in the JSON summaries of `explain` and `load`.
    pub fn json(&self) -> Summary {
        let failures = self.failures.iter().take(MOST_IN_JSON).map(Verdict::json);
        let late = self.slow.answers.iter().filter(|slow| slow.parts.lost_tries > 0.0).take(MOST_IN_JSON);
        let groups: Vec<_> = groups(&self.failures)
            .into_iter()
            .map(|group| {
                json!({
                    "mechanism": group[0].mechanism.name(),
                    "pods": pods(&group),
                    "count": group.len(),
                    "fix": group[0].fix,
                })
            })
            .collect();
        let end = self.meta.end.as_ref();
        let fields = [
            ("verdict", json!(end.map(|end| end.verdict().word()))),
            ("thresholds", json!(end.map(|end| &end.thresholds))),
            ("failures", failures.collect()),
            ("late", late.map(|slow| slow.verdict.json()).collect()),
            ("slow", self.slow.json()),
            ("groups", json!(groups)),
            ("unexplained", json!(self.unexplained())),
            ("missing", json!(self.missing)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Requests of one mechanism, the largest group first.
pub(crate) fn groups(verdicts: &[Verdict]) -> Vec<Vec<&Verdict>> {
    let mut groups: BTreeMap<Mechanism, Vec<&Verdict>> = BTreeMap::new();
    for verdict in verdicts {
        groups.entry(verdict.mechanism).or_default().push(verdict);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups
}

/// The pods that a group met, each with how often.
pub(crate) fn pods<'v>(group: &[&'v Verdict]) -> BTreeMap<&'v str, usize> {
    let mut pods = BTreeMap::new();
    for pod in group.iter().filter_map(|verdict| verdict.pod.as_deref()) {
        *pods.entry(pod).or_default() += 1;
    }
    pods
}

/// A run for a person: what it came to, each group of failures with the evidence of its first, and the slowest answers.
pub fn text(explained: &Explained) -> String {
    let Explained { meta, failures, slow, missing, .. } = explained;
    let mut text = String::new();
    if let Some(end) = &meta.end {
        let _ = writeln!(text, "{}", end.headline());
        for judged in &end.thresholds {
            let _ = writeln!(text, "  {} {:<24} {}", judged.mark(), judged.threshold, judged.measured());
        }
    }
    if failures.is_empty() && missing.is_empty() {
        text.push_str("no request failed\n");
    }
    text + &causes(failures, slow)
}

/// Why requests failed, group by group, and where the time of the slowest answers went; each after an empty line.
pub fn causes(failures: &[Verdict], slow: &Slowest) -> String {
    let text = groups(failures).iter().fold(String::new(), |text, group| text + "\n" + &group_text(group));
    let table = slow.table();
    if table.is_empty() { text } else { text + "\n" + &table + "\n" }
}

/// Each request for itself.
fn requests_text(explained: &Explained) -> String {
    let failures = explained.failures.iter().map(|verdict| group_text(&[verdict]));
    let slow = explained.slow.answers.iter().map(|slow| {
        let mechanism = slow.verdict.mechanism;
        slowest::group_text(&slowest::Group { mechanism, answers: vec![slow] })
    });
    failures.chain(slow).collect::<Vec<_>>().join("\n")
}

/// How often a group's requests failed in which way.
pub(crate) fn codes(group: &[&Verdict]) -> String {
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for verdict in group {
        *codes.entry(error_code(&verdict.record)).or_default() += 1;
    }
    let codes: Vec<_> = codes.into_iter().map(|(code, count)| format!("{count} × {code}")).collect();
    codes.join(", ")
}

fn group_text(group: &[&Verdict]) -> String {
    format!("{}: {}\n", codes(group), group[0].mechanism.title()) + &details(group, None)
}

/// What is known of a group, below its heading; `more` comes first.
fn details(group: &[&Verdict], more: Option<(&str, String)>) -> String {
    let first = group[0];
    let mut text = String::new();
    let mut part = |label: &str, lines: &[String]| {
        for (index, line) in lines.iter().enumerate() {
            let _ = writeln!(text, "  {:<9} {line}", if index == 0 { label } else { "" });
        }
    };
    more.into_iter().for_each(|(label, line)| part(label, &[line]));
    let ids: Vec<_> = group.iter().take(MOST_NAMED).map(|verdict| verdict.record.id.as_str()).collect();
    let more = group.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    part("requests", &[format!("{}{more}", ids.join(" "))]);
    let pods: Vec<_> = pods(group).into_iter().map(|(pod, count)| format!("{count} × {pod}")).collect();
    part("pods", &pods);
    part("evidence", &first.evidence);
    let rejected: Vec<_> =
        first.rejected.iter().map(|(mechanism, why)| format!("{}: {why}", mechanism.name())).collect();
    part("not", &rejected);
    part("missing", &first.missing);
    part("fix", std::slice::from_ref(&first.fix));
    text
}
