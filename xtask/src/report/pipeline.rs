//! A run's steps and gates over its time, what each waited for, and beside them the pods that came and went.

use maud::{Markup, html};

use super::axis::Axis;
use super::lives;
use super::{MOST_LINES, Page, clip, more, plot, quoted};
use crate::output::{Kind, State};
use crate::record::run::Step;

impl Page<'_> {
    pub(super) fn pipeline(&self) -> Markup {
        let run = self.run;
        if run.steps.is_empty() {
            return html! {};
        }
        let time = plot::seconds(run.seconds);
        let path = critical(&run.steps);
        let warnings: Vec<_> =
            run.warnings.iter().map(|(at, of, what)| format!("{at:.1} s, {of}: {what}")).collect();
        // Of a load they stand beside its charts.
        let (lives, others) = match self.load {
            Some(_) => (Vec::new(), 0),
            None => lives::lives(self.timeline, run.asked.began, run.seconds),
        };
        html! {
            section {
                h2 { "Steps and gates" }
                @if !path.is_empty() { p.facts { "What decided how long it took: " (path.join(" → ")) } }
                ul.legend {
                    li { i.did {} "done" }
                    li { i.already {} "was so already" }
                    li { i.bad-bar {} "failed" }
                    li { i.stopped {} "stopped" }
                    li { i.path {} "on the critical path" }
                    @if !lives.is_empty() { (lives::legend(&lives)) }
                }
                ol.steps { @for step in &run.steps { (line(step, &time, run.seconds)) } }
                div.axis { (plot::time_labels(&time)) }
                @if !lives.is_empty() {
                    h3 { "Pods" }
                    ul.lanes { @for life in &lives { (life.lane(&time)) } }
                    (more(others, 0, "pods"))
                }
                @if !warnings.is_empty() {
                    h3 { "Warnings" }
                    (quoted(warnings.iter().take(MOST_LINES)))
                    (more(warnings.len(), MOST_LINES, "warnings"))
                }
            }
        }
    }
}

/// The steps that decided how long a run took; those that took no time that anyone waits for are left out.
pub(super) fn critical(steps: &[Step]) -> Vec<String> {
    let waited = steps.iter().filter(|step| step.is_critical && step.is_waited_for());
    waited.map(took).collect()
}

/// `rollout 12.3 s`.
fn took(step: &Step) -> String {
    match step.end {
        Some(end) => format!("{} {:.1} s", step.name, end - step.start),
        None => format!("{} (no end)", step.name),
    }
}

fn line(step: &Step, time: &Axis, seconds: f64) -> Markup {
    let (class, how) = match step.state {
        State::Done => ("did", "done"),
        State::Already => ("already", "already"),
        State::Failed if step.was_stopped() => ("stopped", "stopped"),
        State::Failed => ("bad-bar", "failed"),
        State::Start | State::Wait => ("stopped", "no end is recorded"),
    };
    let end = step.end.unwrap_or(seconds);
    let waits: Vec<String> = step.waits.iter().map(|(at, wait)| format!("{at:.1} s: {wait}")).collect();
    html! {
        li.critical[step.is_critical] {
            span.name {
                span.glyph aria-hidden="true" { @if step.kind == Kind::Gate { "◇ " } @else { "▪ " } }
                span.unseen { @if step.kind == Kind::Gate { "gate " } @else { "step " } }
                (step.name)
                @if step.is_critical { span.unseen { ", on the critical path" } }
            }
            div.track aria-hidden="true" {
                i class=(class) style=(plot::from_to(time, step.start, end)) {}
            }
            span.took { (format!("{:.2} s", end - step.start)) }
            p.detail {
                @if step.state != State::Done { strong { (how) } ": " }
                (clip(&step.detail))
                @if !step.waited_for.is_empty() {
                    @if !step.detail.is_empty() { "; " }
                    "waited for " (step.waited_for.join(", "))
                }
            }
            @if !waits.is_empty() {
                details {
                    summary { "What it waited for (" (waits.len()) ")" }
                    (quoted(waits.iter().rev().take(MOST_LINES).rev()))
                }
            }
        }
    }
}
