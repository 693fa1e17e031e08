//! How a run ended that is no load's, from its folder alone: what failed and why, and what took the time.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use super::moment::{self, event_line};
use crate::cx::Cx;
use crate::failure::Attach as _;
use crate::options::Format;
use crate::record::run::{Run, Step};
use crate::record::seen;
use crate::record::timeline::Timeline;
use crate::summary::Summary;

/// Warnings of the cluster that are shown, the last ones.
const MOST_WARNINGS: usize = 8;
/// Pods that are shown.
const MOST_PODS: usize = 20;
/// Column of the labels.
const LABELS: usize = 11;

/// Explains the run in that folder.
///
/// # Errors
/// When its records are not whole.
pub(super) fn run(cx: &Cx, dir: &Path) -> Result<Summary> {
    let run = Run::read(dir, None);
    let (seen, missing) =
        if dir.join(crate::record::TIMELINE).exists() { seen(dir, None) } else { Default::default() };
    let timeline = Timeline::new(seen);
    if cx.shared.output == Format::Human {
        cx.output.note(&format!("run {}", cx.short(dir)));
        cx.output.data(text(&run, &timeline).trim_end());
    }
    let mut summary = Summary::new();
    summary.insert("run".into(), json!(dir));
    summary.insert("result".into(), result(&run));
    let missing: Vec<String> = [run.missing.clone(), missing].concat();
    summary.insert("missing".into(), json!(missing));
    if missing.is_empty() {
        return Ok(summary);
    }
    Err(anyhow!("the records of this run are incomplete; missing: {}", missing.join("; ")))
        .attach(summary)
        .hint("what is said above rests on the records that are left")
}

/// What a run came to, as JSON.
fn result(run: &Run) -> Value {
    let verdict = match run.exit_code() {
        None => "unfinished",
        Some(0) => "passed",
        Some(130) => "interrupted",
        Some(_) => "failed",
    };
    let told = |field: &str| run.summary.as_ref().and_then(|summary| summary.get(field));
    json!({
        "command": run.asked.command,
        "verdict": verdict,
        "headline": run.headline(),
        "exit_code": run.exit_code(),
        "failed": run.failed().map(Step::title),
        "unfinished": run.unfinished().map(Step::title).collect::<Vec<_>>(),
        "seconds": run.seconds,
        "error": told("error"),
        "hint": told("hint"),
        "evidence": told("evidence"),
        "critical_path": told("critical_path"),
        "steps": told("steps"),
    })
}

/// A run for a person: two lines where it went well, else with cause and evidence.
pub fn text(run: &Run, timeline: &Timeline) -> String {
    let mut text = run.headline();
    match run.exit_code() {
        Some(0) | None => text.push('\n'),
        Some(code) => {
            let _ = writeln!(text, " (exit code {code}, after {:.1} s)", run.seconds);
        }
    }
    if !run.is_good() {
        cause(&mut text, run, timeline);
    }
    let several = [run.proof().map(|proof| proof.text()), run.spread().map(|spread| spread.text())];
    text.extend(several.into_iter().flatten());
    let path: Vec<_> =
        run.steps.iter().filter(|step| step.is_critical && step.is_waited_for()).map(took).collect();
    if !path.is_empty() {
        let _ = writeln!(text, "critical path: {}", path.join(", "));
    }
    for gap in &run.asked.gaps {
        let _ = writeln!(text, "not recorded: {gap}");
    }
    text
}

fn took(step: &Step) -> String {
    match step.end {
        Some(end) => format!("{} {:.1} s", step.title(), end - step.start),
        None => step.title(),
    }
}

fn cause(text: &mut String, run: &Run, timeline: &Timeline) {
    let mut part = |label: &str, lines: &[String]| {
        for (index, line) in lines.iter().flat_map(|line| line.lines()).enumerate() {
            let label = if index == 0 { label } else { "" };
            let _ = writeln!(text, "  {label:<LABELS$} {line}");
        }
    };
    // Its first line is the headline's.
    let more: Vec<_> =
        run.told("error").into_iter().flat_map(|error| error.lines().skip(1)).map(str::to_owned).collect();
    part("", &more);
    let waiting = run.failed().into_iter().chain(run.unfinished());
    let waited: Vec<_> =
        waiting.filter_map(|step| Some(format!("{}: {}", step.title(), step.wait_at(f64::MAX)?))).collect();
    part("waited for", &waited);
    let end = run.wall(run.seconds);
    let unready = timeline.pods.iter().filter(|pod| !pod.is_gone(end) && !pod.was_ready(end));
    let pods: Vec<_> = unready.map(|pod| moment::pod_line(pod, timeline, end)).take(MOST_PODS).collect();
    part("pods", &pods);
    part("hint", &run.told("hint").map(str::to_owned).into_iter().collect::<Vec<_>>());
    let evidence = run.evidence();
    if !evidence.iter().any(|(heading, _)| heading.starts_with("last warnings")) {
        let warnings = timeline.events_from(run.asked.began).into_iter().filter(|event| event.is_warning());
        let warnings: Vec<_> = warnings.map(event_line).collect();
        part("warnings", &warnings[warnings.len().saturating_sub(MOST_WARNINGS)..]);
    }
    for (heading, lines) in evidence {
        part("evidence", &[heading]);
        part("", &lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>());
    }
}

/// What went wrong in a load's run beside the load itself, where something did.
pub(super) fn beside_load(dir: &Path) -> Option<String> {
    let run = Run::read(dir, None);
    let is_loads = matches!(run.exit_code(), None | Some(0 | 40 | 41 | 130));
    (!is_loads).then(|| format!("{} (exit code {})", run.headline(), run.exit_code().unwrap_or_default()))
}
