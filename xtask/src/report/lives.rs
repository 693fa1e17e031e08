//! The pods of a run over its time: when each started, was Ready, was told to end, and was gone.

use jiff::Timestamp;
use maud::{Markup, html};

use super::axis::Axis;
use super::plot;
use crate::ingress_nginx::NAMESPACE as INGRESS_NAMESPACE;
use crate::record::timeline::{PodStory, Timeline};

/// Pods that are drawn.
const MOST_PODS: usize = 60;

/// One pod's life, as far as it lies in the run.
#[derive(Debug, PartialEq)]
pub(super) struct Life {
    pub(super) name: String,
    /// Whether it is the ingress controller's.
    pub(super) is_ingress: bool,
    pub(super) phases: Vec<Span>,
    /// Ends of its containers that were no success, in seconds, with what is known of them.
    pub(super) exits: Vec<(f64, String)>,
}

/// A phase, in seconds since the run began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) phase: Phase,
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Span {
    fn told(&self) -> String {
        format!("{} {:.1} to {:.1} s", self.phase.name(), self.from, self.to)
    }
}

/// How a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Ready,
    Ending,
}

impl Phase {
    /// Its name, on the page and as a class.
    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Ending => "ending",
        }
    }
}

/// What the colours of the lanes mean.
pub(super) fn legend(lives: &[Life]) -> Markup {
    html! {
        @for phase in [Phase::Starting, Phase::Ready, Phase::Ending] {
            li { i class=(phase.name()) {} "pod " (phase.name()) }
        }
        @if lives.iter().any(|life| !life.exits.is_empty()) { li { i.exit {} "a container failed" } }
    }
}

impl Life {
    /// It as a lane over time; its text says what the colours say.
    pub(super) fn lane(&self, time: &Axis) -> Markup {
        let phases = self.phases.iter().map(Span::told);
        let exits = self.exits.iter().map(|(at, what)| format!("{at:.1} s: {what}"));
        let told: Vec<_> = phases.chain(exits).collect();
        html! {
            li {
                span.name { (self.name) @if self.is_ingress { " (ingress controller)" } }
                div.track aria-hidden="true" {
                    @for span in &self.phases {
                        i class=(span.phase.name()) title=(span.told())
                            style=(plot::from_to(time, span.from, span.to)) {}
                    }
                    @for (at, what) in &self.exits {
                        b title=(format!("{at:.1} s: {what}")) style=(plot::left(time, *at)) {}
                    }
                }
                span.unseen { (told.join(", ")) }
            }
        }
    }
}

/// The pods that lived between `began` and so many seconds later, in the order in which they came; and how many more.
pub(super) fn lives(timeline: &Timeline, began: Timestamp, seconds: f64) -> (Vec<Life>, usize) {
    let since = |at: Timestamp| at.duration_since(began).as_secs_f64();
    let mut lives: Vec<Life> = timeline
        .pods
        .iter()
        .map(|pod| Life {
            name: pod.name.clone(),
            is_ingress: pod.namespace == INGRESS_NAMESPACE,
            phases: phases(pod, seconds, since),
            exits: exits(pod, seconds, since),
        })
        .filter(|life| !life.phases.is_empty())
        .collect();
    lives.sort_by_key(|life| !life.is_ingress);
    let more = lives.len().saturating_sub(MOST_PODS);
    lives.truncate(MOST_PODS);
    (lives, more)
}

fn phases(pod: &PodStory, seconds: f64, since: impl Fn(Timestamp) -> f64) -> Vec<Span> {
    let told = pod.told_to_end.map(|(told, _)| told);
    let gone = pod.gone.map_or(f64::INFINITY, &since);
    let mut changes: Vec<(f64, Phase)> = Vec::new();
    for state in &pod.states {
        let phase = if told.is_some_and(|told| state.at >= told) {
            Phase::Ending
        } else if state.ready {
            Phase::Ready
        } else {
            Phase::Starting
        };
        if changes.last().is_none_or(|(_, last)| *last != phase) {
            changes.push((since(state.at), phase));
        }
    }
    let ends = changes.iter().skip(1).map(|(at, _)| *at).chain([gone]);
    let spans = changes.iter().zip(ends).map(|((from, phase), to)| Span {
        phase: *phase,
        from: from.clamp(0.0, seconds),
        to: to.min(gone).clamp(0.0, seconds),
    });
    spans.filter(|span| span.to > span.from).collect()
}

fn exits(pod: &PodStory, seconds: f64, since: impl Fn(Timestamp) -> f64) -> Vec<(f64, String)> {
    let bad = pod.exits.iter().filter(|exit| exit.code != 0);
    bad.map(|exit| (since(exit.at), format!("exit code {} ({})", exit.code, exit.reason)))
        // The node's times have whole seconds, cut off.
        .filter(|(at, _)| *at > -1.0 && *at <= seconds)
        .map(|(at, what)| (at.max(0.0), what))
        .collect()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::record::timeline::{Exit, PodAt};

    #[test]
    fn a_life_is_cut_to_the_run() {
        let began: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let at = |seconds: i64| began + SignedDuration::from_secs(seconds);
        let state = |seconds, ready| PodAt { at: at(seconds), ready, running_since: None };
        let pod = PodStory {
            name: "web".into(),
            uid: String::new(),
            namespace: "default".into(),
            ip: None,
            last: Pod::default(),
            states: vec![state(-9, false), state(2, true), state(3, true), state(7, true), state(8, false)],
            told_to_end: Some((at(7), 30)),
            gone: Some(at(9)),
            exits: vec![Exit {
                container: "web".into(),
                at: at(8),
                started: None,
                code: 137,
                reason: "Error".into(),
            }],
        };
        let timeline = Timeline { pods: vec![pod], ..Timeline::default() };
        let span = |phase, from, to| Span { phase, from, to };
        let (found, more) = lives(&timeline, began, 8.5);
        assert_eq!(more, 0);
        assert_eq!(
            found[0].phases,
            [span(Phase::Starting, 0.0, 2.0), span(Phase::Ready, 2.0, 7.0), span(Phase::Ending, 7.0, 8.5)]
        );
        assert_eq!(found[0].exits, [(8.0, "exit code 137 (Error)".to_owned())]);
        assert!(lives(&timeline, at(10), 5.0).0.is_empty());
    }
}
