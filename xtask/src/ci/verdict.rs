//! A run as the cases that a CI system knows: each step and gate, each threshold, and the run as a whole.

use std::fmt::Write as _;

use serde::Deserialize as _;
use serde_json::Value;

use crate::record::meta::Judged;
use crate::summary::Summary;

/// What passed or did not.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Case {
    /// What it is one of: `step`, `gate`, `threshold`, `run`.
    pub(super) kind: String,
    /// Its name among those.
    pub(super) name: String,
    /// How long it took, where it took time.
    pub(super) seconds: Option<f64>,
    /// How it ended.
    pub(super) end: End,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Well; what was found.
    Passed(String),
    /// Why not.
    Failed(String),
    /// It was cut off by the failure of another.
    Cut,
}

impl Case {
    /// The cases of a summary.
    pub(super) fn all(summary: &Summary) -> Vec<Case> {
        let list = |name: &str| items(summary.get(name));
        let mut cases: Vec<Case> = list("steps").map(Case::of_step).collect();
        let judged = |list: Option<&Value>| -> Vec<Judged> {
            items(list).filter_map(|judged| Judged::deserialize(judged).ok()).collect()
        };
        cases.extend(judged(summary.get("thresholds")).into_iter().map(Case::of_threshold));
        // Of a load that was repeated each run has its own.
        let runs = items(summary.get("repeat").and_then(|repeat| repeat.get("runs")));
        for (run, n) in runs.zip(1..) {
            cases.extend(judged(run.get("thresholds")).into_iter().map(|judged| {
                let case = Case::of_threshold(judged);
                Case { name: format!("run {n}: {}", case.name), ..case }
            }));
        }
        let end = match summary.get("error") {
            None => End::Passed(String::new()),
            Some(error) => End::Failed(word(error)),
        };
        let name = summary.get("command").map(word).unwrap_or_default();
        cases.push(Case { kind: "run".to_owned(), name, seconds: None, end });
        cases
    }

    fn of_step(step: &Value) -> Case {
        let detail = word(&step["detail"]);
        let end = match step["state"].as_str() {
            Some("done" | "already") => End::Passed(detail),
            Some("failed") => End::Failed(detail),
            _ => End::Cut,
        };
        Case { kind: word(&step["kind"]), name: word(&step["name"]), seconds: step["seconds"].as_f64(), end }
    }

    fn of_threshold(judged: Judged) -> Case {
        let measured = format!("measured {}", judged.measured());
        let end = if judged.met { End::Passed(measured) } else { End::Failed(measured) };
        Case { kind: "threshold".to_owned(), name: judged.threshold, seconds: None, end }
    }
}

fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

/// Everything that explains a failure: the error, what to try, the evidence.
pub(super) fn explanation(summary: &Summary) -> String {
    let mut text = summary.get("error").map(word).unwrap_or_default();
    if let Some(hint) = summary.get("hint") {
        let _ = write!(text, "\nhint: {}", word(hint));
    }
    for part in summary.get("evidence").and_then(Value::as_array).into_iter().flatten() {
        let _ = write!(text, "\n{}", word(&part[0]));
        for line in part[1].as_array().into_iter().flatten() {
            let _ = write!(text, "\n  {}", word(line));
        }
    }
    for group in summary.get("groups").and_then(Value::as_array).into_iter().flatten() {
        let _ = write!(text, "\n{} × {}: {}", group["count"], word(&group["mechanism"]), word(&group["fix"]));
    }
    text
}

/// A string as it is; anything else as JSON.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(word) => word.clone(),
        other => other.to_string(),
    }
}
