//! `cargo xtask explain`: why requests failed, from the recorded run alone. Needs no cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use xtask_load::record::Outcome;
use xtask_load::tally::error_code;

use crate::commands::Advice;
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::options::Format;
use crate::record::case::Case;
use crate::record::find;
use crate::record::meta::Meta;
use crate::record::timeline::Timeline;
use crate::summary::Summary;

mod failure;
mod judge;
pub mod mechanism;
mod proxy;
mod upstream;

pub use failure::Verdict;
pub use judge::judge;
use mechanism::Mechanism;

/// Verdicts that are spelled out in a JSON summary.
const MOST_IN_JSON: usize = 1000;
/// Requests of a group that are named; the JSON has all.
const MOST_NAMED: usize = 5;

/// A run and why its requests went as they did.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The run.
    pub meta: Meta,
    /// Why each failure failed.
    pub failures: Vec<Verdict>,
    /// Why some requests succeeded only at a later try.
    pub late: Vec<Verdict>,
    /// What the cluster did meanwhile.
    pub timeline: Timeline,
    /// What of the run's records is not there, so that this is not all.
    pub missing: Vec<String>,
}

/// Explains a run's failures, or one of them.
///
/// # Errors
/// When there is no such run or request (exit code 2), or the run's records are not whole.
pub fn run(cx: &Cx, run: Option<&str>, request: Option<&str>) -> Result<Summary> {
    let runs = cx.home().join("runs");
    let (dir, request) = match (find(&runs, run), run, request) {
        (Ok(dir), _, request) => (dir, request),
        // One word may be a request of the newest run.
        (Err(_), Some(word), None) if is_id(word) => (find(&runs, None)?, Some(word)),
        (Err(error), ..) => return Err(error),
    };
    let mut explained = explain_run(&dir)
        .hint(Advice::Xtask("load", "makes a new one; a run this damaged can't be explained"))?;
    if let Some(request) = request {
        let all = [&mut explained.failures, &mut explained.late];
        all.into_iter()
            .for_each(|verdicts| verdicts.retain(|verdict| verdict.record.id.starts_with(request)));
        if explained.failures.is_empty() && explained.late.is_empty() {
            return Err(anyhow!(
                "no failed request of {} has an id that begins with `{request}`",
                dir.display()
            ))
            .hint(
                "`cargo xtask explain` without it lists the failures; a request that is not listed succeeded",
            )
            .exit(Exit::Usage);
        }
    }
    if cx.shared.output == Format::Human {
        cx.output.note(&format!("run {}", cx.short(&dir)));
        let text = if request.is_some() { requests_text(&explained) } else { text(&explained) };
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
    Case::read(dir).map(explain).with_context(|| format!("reading the run {}", dir.display()))
}

/// The verdict on each failure of a case, and on each answer that came only at a later try.
pub fn explain(case: Case) -> Explained {
    let failures = case.failures.iter().map(|record| judge(&case, record)).collect();
    let is_late =
        |id: &str| case.access.get(id).and_then(|lines| lines.last()).is_some_and(|a| a.attempts.len() > 1);
    let late =
        case.slow.iter().filter(|record| is_late(&record.id)).map(|record| judge(&case, record)).collect();
    Explained { failures, late, missing: case.missing, timeline: case.timeline, meta: case.meta }
}

impl Explained {
    /// Failures whose cause was not found.
    pub fn unexplained(&self) -> usize {
        self.failures.iter().filter(|verdict| verdict.is_unexplained()).count()
    }

    /// As it is in the JSON summaries of `explain` and `load`.
    pub fn json(&self) -> Summary {
        let list =
            |verdicts: &[Verdict]| verdicts.iter().take(MOST_IN_JSON).map(Verdict::json).collect::<Value>();
        let groups: Vec<_> = groups(&self.failures)
            .into_iter()
            .map(|group| {
                json!({
                    "mechanism": group[0].mechanism.name(),
                    "pods": pods(&group),
                    "count": group.len(),
                    "fix": group[0].mechanism.fix(),
                })
            })
            .collect();
        let end = self.meta.end.as_ref();
        let fields = [
            ("verdict", json!(end.map(|end| end.verdict().word()))),
            ("thresholds", json!(end.map(|end| &end.thresholds))),
            ("failures", list(&self.failures)),
            ("late", list(&self.late)),
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

/// A run for a person: what it came to, and each group of requests with the evidence of its first.
pub fn text(explained: &Explained) -> String {
    let Explained { meta, failures, late, missing, .. } = explained;
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
    text + &causes(failures, late)
}

/// Why requests failed or were late, group by group; each after an empty line.
pub fn causes(failures: &[Verdict], late: &[Verdict]) -> String {
    groups(failures)
        .iter()
        .chain(&groups(late))
        .fold(String::new(), |text, group| text + "\n" + &group_text(group))
}

/// Each request for itself.
fn requests_text(explained: &Explained) -> String {
    let all = explained.failures.iter().chain(&explained.late);
    all.map(|verdict| group_text(&[verdict])).collect::<Vec<_>>().join("\n")
}

/// How often a group's requests failed in which way.
pub(crate) fn codes(group: &[&Verdict]) -> String {
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for verdict in group {
        let record = &verdict.record;
        let code = match record.outcome {
            Outcome::Ok => format!("{} at a later try", record.status.unwrap_or_default()),
            _ => error_code(record),
        };
        *codes.entry(code).or_default() += 1;
    }
    let codes: Vec<_> = codes.into_iter().map(|(code, count)| format!("{count} × {code}")).collect();
    codes.join(", ")
}

fn group_text(group: &[&Verdict]) -> String {
    let first = group[0];
    let mut text = format!("{}: {}\n", codes(group), first.mechanism.title());
    let mut part = |label: &str, lines: &[String]| {
        for (index, line) in lines.iter().enumerate() {
            let _ = writeln!(text, "  {:<9} {line}", if index == 0 { label } else { "" });
        }
    };
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
    part("fix", &[first.mechanism.fix().to_owned()]);
    text
}
