//! The report of a run as one page of HTML that needs nothing else: no network, no other file. It stays small whatever
//! the number of requests, because it is drawn from slices of time. `maud` escapes all that goes into it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::json;
use xtask_load::tally::{Buckets, Latency};

use crate::explain::slowest::Slowest;
use crate::explain::{self, Explained, Verdict};
use crate::record::meta::{self, End, Mark, Meta};
use crate::record::timeline::Timeline;
use crate::record::{RECORDS, REPORT};
use lives::{Life, Phase};
use series::Series;

/// One figure of a latency's distribution, in milliseconds.
type Figure = fn(&Latency) -> f64;

mod lives;
mod plot;
mod series;
pub mod text;

/// Groups of failures that are spelled out.
const MOST_GROUPS: usize = 50;
/// Groups that are open at first.
const OPEN_GROUPS: usize = 5;
/// Characters of a quoted line.
const MOST_QUOTED: usize = 1000;

/// Draws the run in `dir`, which has ended, and leaves the page there.
///
/// # Errors
/// When the records can't be read, or the page can't be written.
pub fn write(dir: &Path, end: &End, explained: &Explained) -> Result<PathBuf> {
    let series = Series::read(&dir.join(RECORDS), end.seconds, end.scheduled)?;
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let page = Page {
        name: &name,
        meta: &explained.meta,
        end,
        series: &series,
        timeline: &explained.timeline,
        explained,
    };
    let path = dir.join(REPORT);
    std::fs::write(&path, page.html().into_string())
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

struct Page<'p> {
    name: &'p str,
    meta: &'p Meta,
    end: &'p End,
    series: &'p Series,
    timeline: &'p Timeline,
    explained: &'p Explained,
}

impl Page<'_> {
    fn html(&self) -> Markup {
        // What runs is what carries this number, which nobody knew who is quoted on the page.
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let policy = format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'");
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(policy);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { "Load run " (self.name) }
                    style { (PreEscaped(include_str!("report/style.css"))) }
                }
                body {
                    main {
                        (self.header())
                        (self.tiles())
                        (self.charts())
                        (self.tables())
                        (self.failures())
                        footer {
                            "Shown again by " code { "cargo xtask explain " (self.name) }
                            ", from the records beside this page."
                        }
                    }
                    script type="application/json" id="slices" { (PreEscaped(self.slices())) }
                    script nonce=(nonce) { (PreEscaped(include_str!("report/script.js"))) }
                }
            }
        }
    }

    fn header(&self) -> Markup {
        let Page { meta, end, .. } = self;
        let (failed, unexplained) = (end.buckets.failed(), self.explained.unexplained());
        let mood = if end.verdict() == meta::Verdict::Passed { "good" } else { "bad" };
        html! {
            header {
                h1 { "Load run " (self.name) }
                p.verdict.(mood) { (clip(&end.headline())) }
                @if failed > 0 {
                    p.facts {
                        (failed) " of " (end.scheduled) " requests failed; " (unexplained) " unexplained"
                    }
                }
                p.facts { (meta.request) " to " (meta.host) " at " (meta.entry) ": " (meta.plan) }
                p.facts {
                    "Began " (meta.began.strftime("%Y-%m-%d %H:%M:%S UTC")) ", namespace " (meta.namespace)
                    @if let Some(without) = &meta.without { "; without " strong { (without) } }
                }
                @for gap in end.gaps.iter().chain(&self.explained.missing) {
                    p.facts.bad { "Missing: " (clip(gap)) }
                }
            }
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

    fn charts(&self) -> Markup {
        let time = plot::time(self.series);
        let (lives, more) = lives::lives(self.timeline, self.meta.began, self.end.seconds);
        html! {
            section {
                h2 { "Over time" }
                (self.legend())
                div.mark-names {
                    @for mark in &self.meta.marks {
                        p { (format!("{:.1} s: ", self.since(mark))) (mark.what) }
                    }
                }
                div.chart {
                    (plot::latency(self.series, &time))
                    (plot::rate(self.series, &time))
                    (plot::time_labels(&time))
                    h3 { "Pods" }
                    ul.pods { @for life in &lives { (self.life(life, &time)) } }
                    div.marks aria-hidden="true" {
                        div style="position:relative;height:100%" {
                            @for mark in &self.meta.marks { i style=(plot::left(&time, self.since(mark))) {} }
                        }
                    }
                }
                output aria-live="off" {}
                @if more > 0 { p.facts { "and " (more) " more pods" } }
                @if self.series.more_failures > 0 {
                    p.facts {
                        (self.series.more_failures)
                        " failures are not drawn one by one, only counted in the requests per second"
                    }
                }
            }
        }
    }

    fn legend(&self) -> Markup {
        html! {
            ul.legend {
                @if !self.series.dots.is_empty() { li { i.dot {} "a request" } }
                li { i.p50 {} "p50" }
                li { i.p99 {} "p99" }
                li { i.ok {} "succeeded" }
                li { i.bad {} "failed" }
                @for phase in [Phase::Starting, Phase::Ready, Phase::Ending] {
                    li { i class=(phase.name()) {} "pod " (phase.name()) }
                }
                @if !self.meta.marks.is_empty() { li { i.mark {} "disturbance" } }
            }
        }
    }

    fn life(&self, life: &Life, time: &plot::Axis) -> Markup {
        html! {
            li {
                span title=(life.name) { (life.name) @if life.is_ingress { " (ingress controller)" } }
                div.track {
                    @for span in &life.phases {
                        i class=(span.phase.name())
                          title=(format!("{} {:.1} to {:.1} s", span.phase.name(), span.from, span.to))
                          style={
                              (plot::left(time, span.from)) ";" (plot::width(time, span.to - span.from))
                          } {}
                    }
                    @for (at, what) in &life.exits {
                        b title=(format!("{at:.1} s: {what}")) style=(plot::left(time, *at)) {}
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
                @if !self.end.thresholds.is_empty() {
                    div {
                        h2 { "Thresholds" }
                        table {
                            tbody {
                                @for judged in &self.end.thresholds {
                                    tr {
                                        th scope="row" { (judged.mark()) " " (clip(&judged.threshold)) }
                                        td { (judged.measured()) }
                                    }
                                }
                            }
                        }
                    }
                }
                div {
                    h2 { "Latency, in milliseconds" }
                    table {
                        thead {
                            tr {
                                th {}
                                th scope="col" { "from due" }
                                th scope="col" { "from sent" }
                                th scope="col" { "generator's lag" }
                            }
                        }
                        tbody {
                            @for (name, pick) in rows {
                                tr {
                                    th scope="row" { (name) }
                                    @for latency in [due.as_ref(), sent.as_ref(), Some(lag)] {
                                        td { (cell(latency, pick)) }
                                    }
                                }
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
                                    tr { th scope="row" { (clip(code)) } td { (count) } }
                                }
                            }
                        }
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
    fn slices(&self) -> String {
        let round = |ms: f64| (ms * 10.0).round() / 10.0;
        let slices = self.series.slices.iter().map(|slice| {
            let latency = slice.latency.map_or([0.0; 3], |l| [l.p50, l.p99, l.max].map(round));
            json!([slice.ok, slice.failed, latency[0], latency[1], latency[2]])
        });
        json!({"seconds": self.series.seconds, "slices": slices.collect::<Vec<_>>()}).to_string()
    }

    fn since(&self, mark: &Mark) -> f64 {
        mark.at.duration_since(self.meta.began).as_secs_f64()
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
                    @if groups.len() > MOST_GROUPS {
                        p.facts { "and " (groups.len() - MOST_GROUPS) " more groups" }
                    }
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

/// The slowest answers: a table of their causes, and the evidence of each.
fn slowest(slow: &Slowest) -> Markup {
    let groups = slow.groups();
    html! {
        @if !groups.is_empty() {
            section {
                h2 { "Where the time of the slowest answers went" }
                p.facts { (slow.headline()) @if let Some(more) = slow.more() { "; " (more) } }
                table {
                    thead {
                        tr {
                            th scope="col" { "cause" } th scope="col" { "answers" }
                            th scope="col" { "took" } th scope="col" { "most of it" }
                        }
                    }
                    tbody {
                        @for group in &groups {
                            tr {
                                th scope="row" { (group.mechanism.title()) }
                                td { (group.answers.len()) } td { (group.range()) } td { (group.most()) }
                            }
                        }
                    }
                }
                @for group in groups.iter().take(MOST_GROUPS) {
                    details {
                        summary { (group.answers.len()) " × " (group.mechanism.title()) }
                        dl {
                            dt { "mechanism" } dd { code { (group.mechanism.name()) } }
                            dt { "time" }
                            dd {
                                (group.parts().line())
                                @if group.answers.len() > 1 { " (the middle of each)" }
                            }
                            (details(&group.verdicts()))
                        }
                    }
                }
            }
        }
    }
}

/// What is known of requests of one mechanism, with the evidence of the first.
fn details(group: &[&Verdict]) -> Markup {
    let first = group[0];
    let ids: Vec<&str> = group.iter().take(5).map(|verdict| verdict.record.id.as_str()).collect();
    let pods: Vec<String> =
        explain::pods(group).into_iter().map(|(pod, count)| format!("{count} × {pod}")).collect();
    let rejected: Vec<String> =
        first.rejected.iter().map(|(mechanism, why)| format!("{}: {why}", mechanism.name())).collect();
    html! {
        @if !pods.is_empty() { dt { "pods" } dd { (quoted(&pods)) } }
        dt { "evidence" } dd { (quoted(&first.evidence)) }
        @if !rejected.is_empty() { dt { "rejected" } dd { (quoted(&rejected)) } }
        @if !first.missing.is_empty() { dt { "missing" } dd { (quoted(&first.missing)) } }
        dt { "fix" } dd { (first.fix) }
        dt { "requests" }
        dd {
            code { (ids.join(" ")) }
            @if group.len() > ids.len() { " and " (group.len() - ids.len()) " more" }
        }
    }
}

fn quoted(lines: &[String]) -> Markup {
    html! { ul.quoted { @for line in lines { li { (clip(line)) } } } }
}

fn clip(line: &str) -> String {
    match line.char_indices().nth(MOST_QUOTED) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

fn ms(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0} ms") } else { format!("{value:.1} ms") }
}
