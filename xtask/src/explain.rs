//! `cargo xtask explain`: why requests failed, from the recorded run alone. Needs no cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde_json::json;
use xtask_load::tally::error_code;

use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::load::{RECORDS, meta};
use crate::options::Format;
use crate::summary::Summary;

pub mod access;
pub mod case;
mod judge;
pub mod mechanism;
mod proxy;
pub mod timeline;
mod upstream;

use case::Case;
pub use judge::{Verdict, judge};
use mechanism::Mechanism;

/// Requests of a group that are named; the JSON has all.
const MOST_NAMED: usize = 5;

/// Explains a run's failures, or one of them.
///
/// # Errors
/// When there is no such run or request; exit code 2.
pub fn run(cx: &Cx, run: Option<&str>, request: Option<&str>) -> Result<Summary> {
    let dir = find(&cx.home().join("runs"), run)?;
    let mut verdicts = explain_run(&dir)?;
    if let Some(request) = request {
        verdicts.retain(|verdict| verdict.record.id.starts_with(request));
        if verdicts.is_empty() {
            return Err(anyhow!("no failed request of {} has an id that begins with `{request}`", dir.display()))
                .hint("`cargo xtask explain` without it lists the failures; a request that is not among them was answered well")
                .exit(Exit::Usage);
        }
    }
    if cx.shared.output == Format::Human {
        cx.output.note(&format!("run {}", cx.short(&dir)));
        let said = match request {
            _ if verdicts.is_empty() => "no request failed".to_owned(),
            Some(_) => verdicts.iter().map(|verdict| group_text(&[verdict])).collect::<Vec<_>>().join("\n"),
            None => text(&verdicts),
        };
        cx.output.data(said.trim_end());
    }
    let unexplained = verdicts.iter().filter(|verdict| verdict.is_unexplained()).count();
    let groups: Vec<_> = groups(&verdicts)
        .into_iter()
        .map(|group| {
            json!({
                "mechanism": group[0].mechanism.name(),
                "pod": group[0].pod,
                "count": group.len(),
                "fix": group[0].mechanism.fix(),
            })
        })
        .collect();
    let fields = [
        ("run", json!(dir)),
        ("failures", verdicts.iter().map(Verdict::json).collect()),
        ("groups", json!(groups)),
        ("unexplained", json!(unexplained)),
    ];
    Ok(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The verdict on each failure of the run in that folder.
///
/// # Errors
/// When the folder holds no load run.
pub fn explain_run(dir: &Path) -> Result<Vec<Verdict>> {
    let case = Case::read(dir).with_context(|| format!("reading the run {}", dir.display()))?;
    Ok(explain(&case))
}

/// The verdict on each failure of a case.
pub fn explain(case: &Case) -> Vec<Verdict> {
    case.failures.iter().map(|record| judge(case, record)).collect()
}

/// The folder of a run: by path, by name, or the newest that has records.
fn find(runs: &Path, name: Option<&str>) -> Result<PathBuf> {
    let is_load = |dir: &Path| dir.join(RECORDS).is_file() && dir.join(meta::FILE).is_file();
    if let Some(name) = name {
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
        .max_by_key(|path| path.join(RECORDS).metadata().and_then(|file| file.modified()).ok());
    newest
        .ok_or_else(|| anyhow!("there is no load run in {}", runs.display()))
        .hint("`cargo xtask load` makes one")
        .exit(Exit::Usage)
}

/// Failures of one mechanism at one pod, the largest group first.
pub(crate) fn groups(verdicts: &[Verdict]) -> Vec<Vec<&Verdict>> {
    let mut groups: BTreeMap<(Mechanism, Option<&str>), Vec<&Verdict>> = BTreeMap::new();
    for verdict in verdicts {
        groups.entry((verdict.mechanism, verdict.pod.as_deref())).or_default().push(verdict);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups
}

/// The failures for a person: each group with the evidence of its first.
pub fn text(verdicts: &[Verdict]) -> String {
    groups(verdicts).iter().map(|group| group_text(group)).collect::<Vec<_>>().join("\n")
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
    let first = group[0];
    let pod = first.pod.as_ref().map(|pod| format!(", {pod}")).unwrap_or_default();
    let mut text = format!("{}: {}{pod}\n", codes(group), first.mechanism.title());
    let mut part = |label: &str, lines: &[String]| {
        for (index, line) in lines.iter().enumerate() {
            let _ = writeln!(text, "  {:<9} {line}", if index == 0 { label } else { "" });
        }
    };
    let ids: Vec<_> = group.iter().take(MOST_NAMED).map(|verdict| verdict.record.id.as_str()).collect();
    let more = group.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    part("requests", &[format!("{}{more}", ids.join(" "))]);
    part("evidence", &first.evidence);
    let rejected: Vec<_> =
        first.rejected.iter().map(|(mechanism, why)| format!("{}: {why}", mechanism.name())).collect();
    part("not", &rejected);
    part("missing", &first.missing);
    part("fix", &[first.mechanism.fix().to_owned()]);
    text
}
