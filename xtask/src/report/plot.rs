//! The charts. Each is an SVG that is stretched to the page's width; strokes keep their width and dots their shape, and
//! all text is HTML beside it, so that it keeps its size on a narrow screen.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::axis::Axis;
use super::series::{Bin, Dot, Series, SliceLatency};

/// The SVG's own units: from left to right, and from top to bottom.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 100.0;

/// Time, from the run's beginning to its end.
pub(super) fn time(series: &Series) -> Axis {
    Axis::linear(series.seconds, 5.0)
}

/// Time, from 0 to so many seconds.
pub(super) fn seconds(seconds: f64) -> Axis {
    Axis::linear(seconds.max(1e-3), 5.0)
}

/// Where a moment lies, in percent of the width.
pub(super) fn left(time: &Axis, seconds: f64) -> String {
    format!("left:{:.2}%", time.share(seconds) * 100.0)
}

/// Where a length of time lies, likewise.
pub(super) fn from_to(time: &Axis, from: f64, to: f64) -> String {
    format!("{};width:{:.2}%", left(time, from), (time.share(to) - time.share(from)) * 100.0)
}

/// The numbers under what is drawn over time.
pub(super) fn time_labels(time: &Axis) -> Markup {
    if time.high < 1.0 { labels(time, 1e3, "ms") } else { labels(time, 1.0, "s") }
}

/// The numbers under a chart, so many to one of its scale; one at the very end stays within the page.
fn labels(scale: &Axis, times: f64, unit: &str) -> Markup {
    html! {
        div.times aria-hidden="true" {
            @for tick in &scale.ticks {
                span.end[scale.share(*tick) > 0.98] style=(left(scale, *tick)) {
                    (number(*tick * times)) " " (unit)
                }
            }
        }
    }
}

/// Latency: each request, or the median and the 99th percentile of each slice; and the requests that failed.
pub(super) fn latency(series: &Series, time: &Axis) -> Markup {
    let seen = series.slices.iter().filter_map(|slice| slice.latency);
    let all =
        seen.flat_map(|l| [l.p50, l.p99]).chain(series.dots.iter().chain(&series.failures).map(|d| d.ms));
    let all: Vec<f64> = all.filter(|ms| *ms > 0.0).collect();
    let low = all.iter().copied().fold(f64::INFINITY, f64::min);
    let high = all.iter().copied().fold(0.0, f64::max);
    let axis = if all.is_empty() { Axis::log(1.0, 10.0) } else { Axis::log(low, high) };
    let line = |of: fn(SliceLatency) -> f64| {
        let mut path = String::new();
        let mut is_on = false;
        for (index, slice) in series.slices.iter().enumerate() {
            // Where nothing was answered the line has a gap.
            let Some(latency) = slice.latency else {
                is_on = false;
                continue;
            };
            let middle = (index as f64 + 0.5) * series.slice_seconds();
            let (x, y) = (time.share(middle) * WIDTH, (1.0 - axis.share(of(latency))) * HEIGHT);
            let _ = write!(path, "{}{x:.1} {y:.1}", if is_on { "L" } else { "M" });
            if !is_on {
                path.push_str("h0");
            }
            is_on = true;
        }
        path
    };
    panel(
        "Latency from when each request was due, in milliseconds",
        &axis,
        time,
        &html! {
            path.dots d=(dots(&series.dots, time, &axis)) {}
            path.p99 d=(line(|latency| latency.p99)) {}
            path.p50 d=(line(|latency| latency.p50)) {}
            path.failures d=(dots(&series.failures, time, &axis)) {}
        },
        "tall",
    )
}

/// Requests per second, those that failed on top.
pub(super) fn rate(series: &Series, time: &Axis) -> Markup {
    let per_second = |count: u64| count as f64 / series.slice_seconds();
    let most = series.slices.iter().map(|slice| per_second(slice.ok + slice.failed)).fold(0.0, f64::max);
    let axis = Axis::linear(most.max(1e-9), 3.0);
    let step = WIDTH / series.slices.len() as f64;
    let (mut ok, mut failed) = (String::new(), String::new());
    for (index, slice) in series.slices.iter().enumerate() {
        let x = index as f64 * step;
        let height = |count: u64| axis.share(per_second(count)) * HEIGHT;
        let (good, all) = (height(slice.ok), height(slice.ok + slice.failed));
        let bar = |path: &mut String, bottom: f64, top: f64| {
            if top > bottom {
                let _ =
                    write!(path, "M{x:.1} {:.1}h{step:.1}V{:.1}h-{step:.1}z", HEIGHT - bottom, HEIGHT - top);
            }
        };
        bar(&mut ok, 0.0, good);
        bar(&mut failed, good, all);
    }
    let drawn = html! { path.ok d=(ok) {} path.failed d=(failed) {} };
    panel("Requests per second", &axis, time, &drawn, "low")
}

/// How many requests took how long; the scale is logarithmic.
pub(super) fn histogram(bins: &[Bin], p50: f64, p99: f64) -> Markup {
    let (Some(first), Some(last)) = (bins.first(), bins.last()) else { return html! {} };
    let across = Axis::log(first.from, last.to);
    let most = bins.iter().map(|bin| bin.count).max().unwrap_or(0);
    let up = Axis::linear(most.max(1) as f64, 3.0);
    let mut bars = String::new();
    for bin in bins.iter().filter(|bin| bin.count > 0) {
        let (left, right) = (across.share(bin.from) * WIDTH, across.share(bin.to) * WIDTH);
        let top = (1.0 - up.share(bin.count as f64)) * HEIGHT;
        let _ = write!(bars, "M{left:.1} {HEIGHT}V{top:.1}H{right:.1}V{HEIGHT}z");
    }
    let line = |ms: f64| format!("M{:.1} 0V{HEIGHT}", across.share(ms) * WIDTH);
    html! {
        ul.legend {
            li { i.ok {} "requests that succeeded" }
            li { i.p50 {} "p50: " (super::ms(p50)) }
            li { i.p99 {} "p99: " (super::ms(p99)) }
        }
        div.chart {
            (panel(
                "Requests by latency from when each was due",
                &up,
                &across,
                &html! { path.ok d=(bars) {} path.p99 d=(line(p99)) {} path.p50 d=(line(p50)) {} },
                "low",
            ))
            (labels(&across, 1.0, "ms"))
        }
    }
}

fn panel(title: &str, axis: &Axis, time: &Axis, drawn: &Markup, class: &str) -> Markup {
    let y = |tick: f64| (1.0 - axis.share(tick)) * 100.0;
    html! {
        h3 { (title) }
        div.panel.(class) {
            div.values aria-hidden="true" {
                @for tick in &axis.ticks { span style={ "top:" (format!("{:.1}",
                    y(*tick))) "%" } { (number(*tick)) } }
            }
            svg role="img" aria-label=(title) viewBox="0 0 1000 100" preserveAspectRatio="none" {
                @for tick in &axis.ticks { path.grid d={ "M0 " (format!("{:.1}", y(*tick))) "H1000" } {} }
                @for tick in &time.ticks { path.grid d={ "M" (format!("{:.1}",
                    time.share(*tick) * WIDTH)) " 0V100" } {} }
                (drawn)
            }
        }
    }
}

/// A path of points: lines of no length, which round caps make dots.
fn dots(dots: &[Dot], time: &Axis, axis: &Axis) -> String {
    dots.iter().fold(String::new(), |mut path, dot| {
        let (x, y) = (time.share(dot.at) * WIDTH, (1.0 - axis.share(dot.ms)) * HEIGHT);
        let _ = write!(path, "M{x:.1} {y:.1}h0");
        path
    })
}

/// As short as can be: 0.5, 20, 1500, 20k.
fn number(value: f64) -> String {
    if value >= 10_000.0 { format!("{}k", trimmed(value / 1000.0)) } else { trimmed(value) }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_round_numbers_and_hold_every_value() {
        let axis = Axis::log(180.0, 9100.0);
        assert_eq!((axis.low, axis.high), (100.0, 10_000.0));
        assert_eq!(
            axis.ticks.iter().map(|tick| number(*tick)).collect::<Vec<_>>().join(" "),
            "100 200 500 1000 2000 5000 10k"
        );
        assert!((axis.share(1000.0) - 0.5).abs() < 1e-9);
        let axis = Axis::log(0.3, 70_000.0);
        assert_eq!(axis.ticks, [1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0]);
        let axis = Axis::linear(25.3, 5.0);
        assert_eq!(axis.ticks, [0.0, 10.0, 20.0]);
        assert_eq!(Axis::linear(0.0, 5.0).share(3.0), 1.0);
        assert_eq!(Axis::log(0.0, 0.0).share(0.0), 0.0);
    }
}
