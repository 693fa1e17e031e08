//! What the page shows of a load: figures, charts, tables, and why requests failed.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::json;
use xtask_load::tally::{Buckets, Latency};

use super::lives::{self, Life};
use super::slowest::{details, slowest};
use super::{Load, MOST_GROUPS, clip, head, more, ms, plot, row};
use crate::explain::{self, Verdict};
use crate::record::meta::{End, Mark, Meta};
use crate::record::timeline::Timeline;

/// One figure of a latency's distribution, in milliseconds.
type Figure = fn(&Latency) -> f64;

/// Groups that are open at first.
const OPEN_GROUPS: usize = 5;
/// The columns of the pods' table.
const PODS: [&str; 7] =
    ["pod", "answered", "lost at it", "p50, ms", "p99, ms", "max, ms", "its containers ended"];
/// Pods in the table.
const MOST_PODS: usize = 60;

impl Load<'_> {
    fn meta(&self) -> &Meta {
        &self.explained.meta
    }

    /// The lines under the verdict.
    pub(super) fn facts(&self) -> Markup {
        let (meta, end) = (self.meta(), self.end);
        let (failed, unexplained) = (end.buckets.failed(), self.explained.unexplained());
        html! {
            @if failed > 0 {
                p.facts { (failed) " of " (end.scheduled) " requests failed; " (unexplained) " unexplained" }
            }
            p.facts { (meta.request) " to " (meta.host) " at " (meta.entry) ": " (meta.plan) }
            p.facts {
                "First request " (meta.began.strftime("%Y-%m-%d %H:%M:%S UTC"))
                ", namespace " (meta.namespace)
                @if let Some(without) = &meta.without { "; without " strong { (without) } }
            }
        }
    }

    /// All that is about the load.
    pub(super) fn sections(&self, timeline: &Timeline) -> Markup {
        html! {
            (self.tiles())
            (self.thresholds())
            (self.failures())
            (self.charts(timeline))
            (self.distribution())
            (self.tables())
            (self.pods(timeline))
        }
    }

    fn tiles(&self) -> Markup {
        let End { scheduled, buckets, latency_ms, seconds, .. } = self.end;
        let rate = self.end.success_rate().map_or_else(|| "–".to_owned(), |rate| format!("{rate:.2} %"));
        let latency =
            |pick: fn(&Latency) -> f64| latency_ms.as_ref().map_or_else(|| "–".to_owned(), |l| ms(pick(l)));
        let tiles = [
            ("Scheduled", scheduled.to_string()),
            ("Successes", buckets.ok.to_string()),
            ("Failures", buckets.failed().to_string()),
            ("Success rate", rate),
            ("Successes per second", format!("{:.1}", self.end.throughput())),
            ("p50", latency(|l| l.p50)),
            ("p99", latency(|l| l.p99)),
            ("Seconds", format!("{seconds:.1}")),
        ];
        html! {
            section aria-label="In short" {
                dl.tiles { @for (name, value) in tiles { div { dt { (name) } dd { (value) } } } }
            }
        }
    }

    fn thresholds(&self) -> Markup {
        let judged = &self.end.thresholds;
        html! {
            @if !judged.is_empty() {
                section {
                    h2 { "Thresholds" }
                    table.thresholds {
                        (head(&["condition", "measured", "verdict"]))
                        tbody {
                            @for judged in judged {
                                tr {
                                    th scope="row" { code { (clip(&judged.threshold)) } }
                                    td { (clip(&judged.measured())) }
                                    @if judged.met { td.good { (judged.mark()) " met" } }
                                    @else { td.bad { (judged.mark()) " not met" } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn charts(&self, timeline: &Timeline) -> Markup {
        let time = plot::time(&self.series);
        let meta = self.meta();
        let (lives, others) = lives::lives(timeline, meta.began, self.end.seconds);
        html! {
            section {
                h2 { "Over time" }
                (self.legend(&lives))
                div.mark-names {
                    @for mark in &meta.marks { p { (format!("{:.1} s: ", self.since(mark))) (mark.what) } }
                }
                div.chart tabindex="0" role="group" aria-label="Charts over time, for the arrow keys" {
                    (plot::latency(&self.series, &time))
                    (plot::rate(&self.series, &time))
                    (plot::time_labels(&time))
                    @if !lives.is_empty() {
                        h3 { "Pods" }
                        ul.pods { @for life in &lives { (life.lane(&time)) } }
                    }
                    div.marks aria-hidden="true" {
                        div style="position:relative;height:100%" {
                            @for mark in &meta.marks { i style=(plot::left(&time, self.since(mark))) {} }
                        }
                    }
                }
                output aria-live="polite" {}
                (more(others, 0, "pods"))
                @if self.series.more_failures > 0 {
                    p.facts {
                        (self.series.more_failures)
                        " failures are not drawn one by one, only counted in the requests per second"
                    }
                }
            }
        }
    }

    fn legend(&self, lives: &[Life]) -> Markup {
        html! {
            ul.legend {
                @if !self.series.dots.is_empty() { li { i.dot {} "a request" } }
                li { i.p50 {} "p50" }
                li { i.p99 {} "p99" }
                li { i.ok {} "succeeded" }
                li { i.bad {} "failed" }
                (lives::legend(lives))
                @if !self.meta().marks.is_empty() { li { i.mark {} "disturbance" } }
            }
        }
    }

    /// How the latencies are distributed.
    fn distribution(&self) -> Markup {
        let Some(latency) = self.end.latency_ms.as_ref().filter(|_| !self.series.histogram.is_empty()) else {
            return html! {};
        };
        let bins = || self.series.histogram.iter().filter(|bin| bin.count > 0);
        html! {
            section {
                h2 { "Distribution of latency" }
                (plot::histogram(&self.series.histogram, latency.p50, latency.p99))
                details.again {
                    summary { "As a table" }
                    table {
                        (head(&["from", "to", "requests"]))
                        tbody {
                            @for bin in bins() { (row(&ms(bin.from), &[ms(bin.to), bin.count.to_string()])) }
                        }
                    }
                }
            }
        }
    }

    fn tables(&self) -> Markup {
        let End { latency_ms: due, sent_latency_ms: sent, lag_ms: lag, buckets, own_cpu, .. } = self.end;
        let rows: [(&str, Figure); 8] = [
            ("min", |l| l.min),
            ("mean", |l| l.mean),
            ("p50", |l| l.p50),
            ("p90", |l| l.p90),
            ("p95", |l| l.p95),
            ("p99", |l| l.p99),
            ("p99.9", |l| l.p999),
            ("max", |l| l.max),
        ];
        let all = [due.as_ref(), sent.as_ref(), Some(lag)];
        let cell = |latency: Option<&Latency>, pick: Figure| {
            latency.map_or_else(|| "–".to_owned(), |latency| format!("{:.1}", pick(latency)))
        };
        let Buckets { ok, http_error, socket_error, timeout, dropped, unsent } = *buckets;
        let ends = [
            ("ok", ok),
            ("http error", http_error),
            ("socket error", socket_error),
            ("timeout", timeout),
            ("dropped by the generator", dropped),
            ("unsent at the end", unsent),
        ];
        html! {
            section.tables {
                div {
                    h2 { "Latency, in milliseconds" }
                    table {
                        (head(&["", "from due", "from sent", "generator's lag"]))
                        tbody {
                            @for (name, pick) in rows {
                                (row(name, &all.map(|latency| cell(latency, pick))))
                            }
                        }
                    }
                    p.facts {
                        "The generator was busy " (format!("{:.0}", own_cpu * 100.0)) " % of the time."
                    }
                }
                div {
                    h2 { "How the requests ended" }
                    table {
                        tbody {
                            @for (name, count) in ends { tr { th scope="row" { (name) } td { (count) } } }
                            tr { th scope="row" { "scheduled" } td { strong { (self.end.scheduled) } } }
                        }
                    }
                }
                @if !self.series.errors.is_empty() {
                    div {
                        h2 { "Errors" }
                        table {
                            tbody {
                                @for (code, count) in self.series.errors.iter().take(20) {
                                    (row(code, &[count.to_string()]))
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// What each pod answered, and what was lost at it.
    fn pods(&self, timeline: &Timeline) -> Markup {
        let mut lost: BTreeMap<&str, usize> = BTreeMap::new();
        for verdict in &self.explained.failures {
            *lost.entry(verdict.pod.as_deref().unwrap_or_default()).or_default() += 1;
        }
        let mut names: Vec<&str> =
            self.series.pods.keys().map(String::as_str).chain(lost.keys().copied()).collect();
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        names.dedup();
        let ends = |name: &str| {
            let pod = timeline.pods.iter().rev().find(|pod| pod.name == name);
            let exits: Vec<_> = pod.iter().flat_map(|pod| &pod.exits).collect();
            let exits = exits.iter().map(|exit| format!("exit code {} ({})", exit.code, exit.reason));
            exits.collect::<Vec<_>>().join(", ")
        };
        let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"));
        let cells = |name: &str| {
            let answered = self.series.pods.get(name);
            let latency = answered.and_then(|pod| pod.latency);
            let figures =
                [latency.map(|l| l.p50), latency.map(|l| l.p99), latency.map(|l| l.max)].map(figure);
            let [p50, p99, max] = figures;
            let lost = lost.get(name).copied().unwrap_or(0);
            [answered.map_or(0, |pod| pod.count).to_string(), lost.to_string(), p50, p99, max, ends(name)]
        };
        html! {
            @if !names.is_empty() {
                section {
                    h2 { "Pod by pod" }
                    div.scrolls tabindex="0" role="region" aria-label="Pod by pod" {
                        table {
                            (head(&PODS))
                            tbody { @for name in names.iter().take(MOST_PODS) { (row(name, &cells(name))) } }
                        }
                    }
                    (more(names.len(), MOST_PODS, "pods"))
                    @if let Some(nowhere) = lost.get("") {
                        p.facts { (nowhere) " failed without having met a pod." }
                    }
                }
            }
        }
    }

    fn failures(&self) -> Markup {
        html! {
            (causes("Why requests failed", &self.explained.failures))
            (slowest(&self.explained.slow))
        }
    }

    /// What the script says of each slice: numbers and nothing else.
    pub(super) fn slices(&self) -> String {
        let round = |ms: f64| (ms * 10.0).round() / 10.0;
        let slices = self.series.slices.iter().map(|slice| {
            let latency = slice.latency.map_or([0.0; 3], |l| [l.p50, l.p99, l.max].map(round));
            json!([slice.ok, slice.failed, latency[0], latency[1], latency[2]])
        });
        json!({"seconds": self.series.seconds, "slices": slices.collect::<Vec<_>>()}).to_string()
    }

    fn since(&self, mark: &Mark) -> f64 {
        mark.at.duration_since(self.meta().began).as_secs_f64()
    }
}

/// Groups of requests, each of one mechanism.
fn causes(title: &str, verdicts: &[Verdict]) -> Markup {
    let groups = explain::groups(verdicts);
    html! {
        @if !groups.is_empty() {
            section {
                h2 { (title) }
                @for (index, group) in groups.iter().take(MOST_GROUPS).enumerate() {
                    (failure(group, index < OPEN_GROUPS))
                }
                (more(groups.len(), MOST_GROUPS, "groups"))
            }
        }
    }
}

/// Requests of one mechanism, with the evidence of the first.
fn failure(group: &[&Verdict], is_open: bool) -> Markup {
    let first = group[0];
    html! {
        details open[is_open] {
            summary { (group.len()) " × " (first.mechanism.title()) }
            dl {
                dt { "mechanism" }
                dd { code { (first.mechanism.name()) } ", seen as " (explain::codes(group)) }
                (details(group))
            }
        }
    }
}
