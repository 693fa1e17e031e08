//! The run in short, as Markdown that can be pasted into a pull request or an issue.

use std::fmt::Write as _;

use super::pipeline::critical;
use super::{Load, MOST_LINES, Page, clip, environment};
use crate::explain;
use crate::markdown::{block, cell};

/// Groups of failures that are told.
const MOST_GROUPS: usize = 10;

impl Page<'_> {
    pub(super) fn markdown(&self) -> String {
        let run = self.run;
        let mut text = format!("### {}\n", cell(&clip(&self.headline())));
        if let Some(load) = self.load {
            text.push_str(&load.markdown());
        } else if let Some(error) = run.told("error") {
            let mut why = clip(error);
            why.extend(run.told("hint").map(|hint| format!("\nhint: {}", clip(hint))));
            for (heading, lines) in run.evidence() {
                let _ = write!(why, "\n\n{heading}");
                why.extend(lines.iter().take(MOST_LINES).map(|line| format!("\n  {}", clip(line))));
            }
            let _ = write!(text, "\n{}", block(&why));
        }
        for several in [run.proof().map(|proof| proof.text()), run.spread().map(|spread| spread.text())] {
            text.extend(several.map(|several| format!("\n{}", block(several.trim_end()))));
        }
        for gap in self.gaps() {
            let _ = write!(text, "\nMissing: {}\n", cell(&clip(gap)));
        }
        if !run.steps.is_empty() {
            text.push_str("\n<details><summary>Steps and gates</summary>\n\n");
            text.push_str("| | what | took | waited for |\n|---|---|---|---|\n");
            for step in &run.steps {
                let mark = if step.is_done() { "✓" } else { "✗" };
                let path = if step.is_critical { "**" } else { "" };
                let (title, waited_for) = (cell(&step.title()), cell(&step.waited_for.join(", ")));
                let took = format!("{:.1} s", step.end.unwrap_or(run.seconds) - step.start);
                let _ = writeln!(text, "| {mark} | {path}{title}{path} | {took} | {waited_for} |");
            }
            let path = critical(&run.steps);
            if !path.is_empty() {
                let _ = write!(text, "\nCritical path: {}\n", cell(&path.join(" → ")));
            }
            text.push_str("\n</details>\n");
        }
        let facts = environment::facts(&run.asked.environment, self.timeline);
        if !run.asked.line.is_empty() && !facts.is_empty() {
            text.push_str("\n<details><summary>Environment</summary>\n\n| | |\n|---|---|\n");
            for (name, value) in facts {
                let _ = writeln!(text, "| {name} | {} |", cell(&clip(&value)));
            }
            let _ = write!(text, "\n{}\n</details>\n", block(&run.asked.line));
        }
        text
    }
}

impl Load<'_> {
    fn markdown(&self) -> String {
        let (meta, end) = (&self.explained.meta, self.end);
        let mut text = format!("\n{} to {}: {}", cell(&meta.request), cell(&meta.host), cell(&meta.plan));
        if let Some(without) = &meta.without {
            let _ = write!(text, "; without {}", cell(without));
        }
        let _ = write!(text, "\n{} of {} requests succeeded", end.buckets.ok, end.scheduled);
        let errors: Vec<_> = self
            .series
            .errors
            .iter()
            .take(10)
            .map(|(code, count)| format!("{count} × {}", cell(&clip(code))))
            .collect();
        if !errors.is_empty() {
            let _ = write!(text, ": {}", errors.join(", "));
        }
        text.push('\n');
        if !end.thresholds.is_empty() {
            text.push_str("\n| | threshold | measured |\n|---|---|---|\n");
            for judged in &end.thresholds {
                let (threshold, measured) = (cell(&clip(&judged.threshold)), cell(&clip(&judged.measured())));
                let _ = writeln!(text, "| {} | {threshold} | {measured} |", judged.mark());
            }
        }
        if let Some(l) = &end.latency_ms {
            text.push_str("\n| latency | p50 | p90 | p95 | p99 | max |\n|---|---|---|---|---|---|\n");
            let figures = [l.p50, l.p90, l.p95, l.p99, l.max].map(|ms| format!("{ms:.1}")).join(" | ");
            let _ = writeln!(text, "| ms, from due | {figures} |");
        }
        for group in explain::groups(&self.explained.failures).iter().take(MOST_GROUPS) {
            let first = group[0];
            let _ = write!(
                text,
                "\n**{}: {}**\n\n{}Fix: {}\n",
                cell(&explain::codes(group)),
                cell(first.mechanism.title()),
                block(&first.evidence.iter().map(|line| clip(line)).collect::<Vec<_>>().join("\n")),
                cell(&first.fix),
            );
        }
        if self.explained.slow.count > 0 {
            let _ = write!(text, "\n{}\n", cell(&self.explained.slow.headline()));
        }
        text
    }
}
