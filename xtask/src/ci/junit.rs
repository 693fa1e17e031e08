//! The run as a JUnit file, which every CI system reads.

use std::time::Duration;

use anyhow::{Context as _, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::verdict::{Case, End, explanation};
use crate::summary::Summary;

/// The document: one suite for each kind of case, in the order in which they came.
pub(super) fn document(summary: &Summary, cases: &[Case]) -> Result<String> {
    let mut report = Report::new("cargo xtask");
    for cases in cases.chunk_by(|a, b| suite_of(a) == suite_of(b)) {
        let mut suite = TestSuite::new(suite_of(&cases[0]));
        suite.add_test_cases(cases.iter().map(|case| {
            let mut status = match &case.end {
                End::Passed(_) => TestCaseStatus::success(),
                End::Failed(_) => TestCaseStatus::non_success(NonSuccessKind::Failure),
                End::Cut => TestCaseStatus::skipped(),
            };
            match &case.end {
                End::Failed(why) => {
                    status.set_message(why.as_str());
                    if case.kind == "run" {
                        status.set_description(explanation(summary));
                    }
                }
                End::Cut => {
                    status.set_message("stopped, for something else had failed");
                }
                End::Passed(_) => {}
            }
            let mut test = TestCase::new(case.name.as_str(), status);
            test.set_classname(format!("xtask.{}", case.kind));
            if let Some(seconds) = case.seconds {
                test.set_time(Duration::try_from_secs_f64(seconds).unwrap_or_default());
            }
            if let End::Passed(what) = &case.end
                && !what.is_empty()
            {
                test.set_system_out(what.as_str());
            }
            test
        }));
        report.add_test_suite(suite);
    }
    report.to_string().context("writing XML")
}

fn suite_of(case: &Case) -> &str {
    match case.kind.as_str() {
        "step" | "gate" => "steps and gates",
        "threshold" => "thresholds",
        _ => "run",
    }
}
