//! The run as a JUnit file, which every CI system reads. `maud` writes and escapes XML as it does HTML; every element
//! here has an end tag.

use anstream::adapter::strip_str;
use maud::{Markup, PreEscaped, html};

use super::verdict::{Case, End, explanation};
use crate::summary::Summary;

/// The document: one suite for each kind of case, in the order in which they came.
pub(super) fn document(summary: &Summary, cases: &[Case]) -> String {
    let xml = html! {
        (PreEscaped(r#"<?xml version="1.0" encoding="UTF-8"?>"#)) "\n"
        testsuites name="cargo xtask" tests=(cases.len()) skipped=(skipped(cases)) errors="0"
            failures=(failed(cases))
        {
            "\n"
            @for cases in cases.chunk_by(|a, b| suite_of(a) == suite_of(b)) {
                testsuite name=(suite_of(&cases[0])) tests=(cases.len()) skipped=(skipped(cases)) errors="0"
                    failures=(failed(cases))
                {
                    "\n"
                    @for case in cases { (test(summary, case)) "\n" }
                }
                "\n"
            }
        }
        "\n"
    };
    // XML has no way to write the others.
    let may_stand = |c: &char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    strip_str(&xml.into_string()).to_string().chars().filter(may_stand).collect()
}

fn test(summary: &Summary, case: &Case) -> Markup {
    let seconds = case.seconds.map(|seconds| format!("{seconds:.3}"));
    html! {
        testcase name=(case.name) classname={ "xtask." (case.kind) } time=[seconds] {
            @match &case.end {
                End::Passed(what) if what.is_empty() => {},
                End::Passed(what) => system-out { (what) },
                End::Failed(why) if case.kind == "run" => failure message=(why) { (explanation(summary)) },
                End::Failed(why) => failure message=(why) {},
                End::Cut => skipped message="stopped, for something else had failed" {},
            }
        }
    }
}

fn skipped(cases: &[Case]) -> usize {
    cases.iter().filter(|case| matches!(case.end, End::Cut)).count()
}

fn failed(cases: &[Case]) -> usize {
    cases.iter().filter(|case| matches!(case.end, End::Failed(_))).count()
}

fn suite_of(case: &Case) -> &str {
    match case.kind.as_str() {
        "step" | "gate" => "steps and gates",
        "threshold" => "thresholds",
        _ => "run",
    }
}

#[cfg(test)]
mod tests {
    use quick_junit::{Report, TestCaseStatus};

    use super::super::github::tests::failed;
    use super::*;

    #[test]
    fn the_junit_file_has_a_case_for_each_step_and_threshold() {
        insta::assert_snapshot!(document(&failed(), &Case::all(&failed())));
    }

    /// Somebody else's reading of the format.
    #[test]
    fn what_programs_print_arrives_whole_in_a_reader_of_junit_files() {
        let said = "\u{1b}[31mred\u{1b}[0m \u{0}<b> & \"it's\" ]]> \u{ffff}\u{1f980}";
        let mut summary = failed();
        summary.insert("error".into(), said.into());
        let report =
            Report::deserialize_from_str(&document(&summary, &Case::all(&summary))).expect("a report");
        assert_eq!((report.tests, report.failures, report.errors), (5, 3, 0));
        let run = report.test_suites.last().and_then(|suite| suite.test_cases.first()).expect("the run");
        let TestCaseStatus::NonSuccess { message, description, .. } = &run.status else { panic!("{run:?}") };
        let message = message.as_ref().expect("a message").as_str();
        let clean = "red <b> & \"it's\" ]]> \u{1f980}";
        assert_eq!(message, clean);
        let explained = description.as_ref().expect("an explanation").as_str();
        assert!(
            explained.starts_with(clean) && explained.contains("hint: did you mean replicas?"),
            "{explained}"
        );
    }
}
