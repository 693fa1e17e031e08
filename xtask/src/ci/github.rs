//! What GitHub shows of a run: an annotation at the line of a manifest that is the cause, and the summary of the job.
//! Facts: <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>.

use std::fmt::Write as _;

use super::verdict::{Case, End, explanation, word};
use crate::markdown::{block, cell};
use crate::output::plain;
use crate::summary::Summary;

/// GitHub takes a mebibyte of summary a step; this one is not to be all of it.
const MOST_BYTES: usize = 64 * 1024;

/// The failure as a workflow command, at its line where it names one; nothing where the run ended well.
pub(super) fn annotation(summary: &Summary) -> Option<String> {
    let error = summary.get("error").map(word)?;
    let command = summary.get("command").map(word).unwrap_or_default();
    let hint = summary.get("hint").map(|hint| format!("\nhint: {}", word(hint))).unwrap_or_default();
    let explained = explanation(summary);
    let place = place(&error).or_else(|| place(&explained));
    let place = place.map(|(file, line)| format!("file={},line={line},", property(file))).unwrap_or_default();
    let title = property(&format!("cargo xtask {command}"));
    Some(format!("::error {place}title={title}::{}", data(&format!("{error}{hint}"))))
}

/// The first `FOLDER/FILE.yaml:LINE` of a text.
fn place(text: &str) -> Option<(&str, u32)> {
    text.split([' ', '\n', '(', ')', ',', ';']).find_map(|word| {
        let (file, rest) = word.split_once(':')?;
        let is_manifest = [".yaml", ".yml", ".json"].iter().any(|kind| file.ends_with(kind));
        let digits = rest.split(':').next()?;
        (is_manifest && !file.starts_with('/')).then_some((file, digits.parse().ok()?))
    })
}

/// A workflow command is one line.
fn data(text: &str) -> String {
    plain(text).replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The job's summary.
pub(super) fn markdown(summary: &Summary, cases: &[Case]) -> String {
    let command = summary.get("command").map(word).unwrap_or_default();
    let failed = summary.get("error").is_some();
    let mut text = format!("### {} cargo xtask {command}\n\n", if failed { "❌" } else { "✅" });
    let shown: Vec<_> = cases.iter().filter(|case| case.kind != "run").collect();
    if !shown.is_empty() {
        text.push_str("| | what | took | |\n|---|---|---|---|\n");
    }
    for case in shown {
        let (mark, detail) = match &case.end {
            End::Passed(detail) => ("✓", detail.as_str()),
            End::Failed(why) => ("✗", why.as_str()),
            End::Cut => ("–", "stopped"),
        };
        let took = case.seconds.map(|seconds| format!("{seconds:.1} s")).unwrap_or_default();
        let _ = writeln!(text, "| {mark} | {} {} | {took} | {} |", case.kind, cell(&case.name), cell(detail));
    }
    if failed {
        let _ = write!(text, "\n{}", block(clip(&explanation(summary))));
    }
    for (name, what) in [("report", "Report"), ("run", "Records")] {
        if let Some(path) = summary.get(name).map(word).filter(|path| !path.is_empty()) {
            let _ = write!(text, "\n{what}: `{}`\n", path.replace('`', ""));
        }
    }
    text.push('\n');
    text
}

fn clip(text: &str) -> &str {
    match text.char_indices().find(|(at, _)| *at >= MOST_BYTES) {
        Some((at, _)) => &text[..at],
        None => text,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn failed() -> Summary {
        let summary = json!({
            "command": "up", "ok": false, "exit_code": 20,
            "error": "applying deployment/x: kubernetes/30-deployment.yaml:38: spec.replica: unknown \
                      field\nsecond",
            "hint": "did you mean replicas?",
            "evidence": [["events", ["Warning | `Failed`", "```"]]],
            "steps": [
                {"name": "image", "kind": "step", "state": "done", "seconds": 3.25,
                 "detail": "built a|b <img>"},
                {"name": "apply", "kind": "step", "state": "failed", "seconds": 0.5,
                 "detail": "unknown field"},
                {"name": "metrics", "kind": "gate", "state": "wait", "seconds": 1.0},
            ],
            "thresholds": [{"threshold": "p99<800ms", "value": 912.345, "unit": " ms", "met": false}],
        });
        summary.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_cause_with_a_line_is_annotated_there() {
        assert_eq!(
            annotation(&failed()).as_deref(),
            Some(
                "::error file=kubernetes/30-deployment.yaml,line=38,title=cargo xtask up::applying \
                 deployment/x: kubernetes/30-deployment.yaml:38: spec.replica: unknown \
                 field%0Asecond%0Ahint: did you mean replicas?"
            )
        );
        assert_eq!(place("no place: at 10:30"), None);
        assert_eq!(place("probe (kubernetes/x.yml:7)"), Some(("kubernetes/x.yml", 7)));
        assert_eq!(annotation(&Summary::new()), None);
    }

    #[test]
    fn the_jobs_summary_shows_words_of_others_as_words() {
        insta::assert_snapshot!(markdown(&failed(), &Case::all(&failed())));
    }
}
