//! What was true at a moment of a run: what was under way, which gates were open, pods, endpoints, requests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Result, anyhow};
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};
use xtask_load::record::{Outcome, Record};
use xtask_load::tally::error_code;

use super::failure::clock;
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::gates;
use crate::gates::clock::Clock;
use crate::options::Format;
use crate::output::Kind;
use crate::record::meta::Meta;
use crate::record::run::{Run, Step};
use crate::record::timeline::{EventSeen, PodStory, Timeline};
use crate::record::{RECORDS, earlier, for_each_line, later, seen};
use crate::summary::Summary;

/// Events that are shown: those of so many seconds before, the last ones.
const EVENTS_WITHIN: SignedDuration = SignedDuration::from_secs(10);
const MOST_EVENTS: usize = 8;
/// Failures count as being around a moment within this time, to both sides.
const AROUND_US: i64 = 1_000_000;

/// A moment, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    /// So long after a load's first request, or the run's beginning.
    Since(f64),
    /// By the clock, as evidence quotes it.
    Clock(Time),
    /// By calendar and clock.
    Wall(Timestamp),
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<At, String> {
        if let Ok(at) = text.parse() {
            return Ok(At::Wall(at));
        }
        // Before durations: `14:03:07` can be read as one too.
        if let Some(time) = text.contains(':').then(|| text.trim_end_matches('Z').parse().ok()).flatten() {
            return Ok(At::Clock(time));
        }
        let span = || text.parse::<SignedDuration>().ok().map(|span| span.as_secs_f64());
        if let Some(seconds) = text.parse().ok().or_else(span).filter(|seconds: &f64| seconds.is_finite()) {
            return if seconds < 0.0 {
                Err(format!("`{text}` is before the beginning"))
            } else {
                Ok(At::Since(seconds))
            };
        }
        Err(format!(
            "`{text}` is no moment of a run; write 12s, 1m30s, or 14:03:07.250 as the evidence has it"
        ))
    }
}

/// One line of what was true, under its heading.
type Part = (&'static str, Vec<String>);

/// Says what was true at a moment of the run in that folder.
///
/// # Errors
/// When the run does not reach that far; exit code 2.
pub(super) fn run(cx: &Cx, dir: &Path, at: At) -> Result<Summary> {
    let run = Run::read(dir, None);
    let load = Meta::read(dir).ok();
    let zero = load.as_ref().map_or(run.asked.began, |meta| meta.began);
    let wall = match at {
        At::Since(since) => later(zero, seconds(since)),
        At::Clock(time) => on_clock(zero, time),
        At::Wall(at) => at,
    };
    let of_load = load.as_ref().and_then(|meta| Some(later(meta.began, seconds(meta.end.as_ref()?.seconds))));
    let last = run.wall(run.seconds).max(of_load.unwrap_or(zero));
    let first = if run.steps.is_empty() { zero } else { run.asked.began.min(zero) };
    // A run that is still under way may be asked for its last moment.
    if wall < first || wall > later(last, SignedDuration::from_secs(1)) {
        let length = last.duration_since(zero).as_secs_f64();
        return Err(anyhow!("{} is outside of this run", clock(wall)))
            .hint(format!("it went from {} to {}, which is {length:.1} s", clock(first), clock(last)))
            .exit(Exit::Usage);
    }
    let (seen, missing) = seen(dir, Some(wall));
    let timeline = Timeline::new(seen);
    let mut parts = steps(&run, run.since(wall));
    parts.push(("pods", pods(&timeline, wall)));
    parts.push(("endpoints", endpoints(&timeline)));
    let requests = load.map(|meta| Requests::at(dir, wall.duration_since(meta.began)));
    parts.extend(requests.as_ref().map(|requests| ("requests", vec![requests.line()])));
    let events: Vec<_> =
        timeline.events_from(earlier(wall, EVENTS_WITHIN)).into_iter().map(event_line).collect();
    parts.push(("events", events[events.len().saturating_sub(MOST_EVENTS)..].to_vec()));

    let since = wall.duration_since(zero).as_secs_f64();
    if cx.shared.output == Format::Human {
        cx.output.note(&format!("run {}", cx.short(dir)));
        cx.output.data(text(since, wall, &parts).trim_end());
        for missing in &missing {
            cx.output.note(&format!("warning: missing: {missing}"));
        }
    }
    let mut fields: serde_json::Map<String, Value> =
        parts.into_iter().map(|(name, lines)| (name.replace(' ', "_"), json!(lines))).collect();
    fields.insert("seconds".into(), json!(since));
    fields.insert("time".into(), json!(wall));
    if let Some(requests) = requests {
        fields.insert("requests".into(), requests.json());
    }
    let summary = [("run", json!(dir)), ("at", fields.into()), ("missing", json!(missing))];
    Ok(summary.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn seconds(seconds: f64) -> SignedDuration {
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX)
}

/// The first such time of day that is not before a moment, or just was.
fn on_clock(from: Timestamp, time: Time) -> Timestamp {
    let begin = earlier(from, SignedDuration::from_hours(12));
    let days = [begin, later(begin, SignedDuration::from_hours(24))];
    let on = |day: Timestamp| {
        let date = day.to_zoned(TimeZone::UTC).date();
        date.to_datetime(time).to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp())
    };
    days.into_iter().filter_map(|day| on(day).ok()).find(|at| *at >= begin).unwrap_or(from)
}

fn text(since: f64, wall: Timestamp, parts: &[Part]) -> String {
    let mut text = format!("at {since:.1} s ({} UTC)\n", clock(wall));
    for (label, lines) in parts {
        for (index, line) in lines.iter().enumerate() {
            let _ = writeln!(text, "  {:<10} {line}", if index == 0 { label } else { "" });
        }
        if lines.is_empty() {
            let _ = writeln!(text, "  {label:<10} none");
        }
    }
    text
}

fn steps(run: &Run, at: f64) -> Vec<Part> {
    let under_way = run.steps.iter().filter(|step| step.is_under_way(at)).map(|step| {
        let what = step.wait_at(at).map(|wait| format!(": {wait}")).unwrap_or_default();
        format!("{}, for {:.1} s{what}", step.title(), at - step.start)
    });
    let ended = |kind: Kind| -> Vec<String> {
        let ended =
            run.steps.iter().filter(|step| step.kind == kind && step.is_done() && !step.is_under_way(at));
        let names: Vec<_> = ended.filter(|step| step.start <= at).map(|step| step.name.as_str()).collect();
        if names.is_empty() { Vec::new() } else { vec![names.join(", ")] }
    };
    let failed = run.steps.iter().filter(|step| step.has_failed() && step.end.is_some_and(|end| end <= at));
    let failed: Vec<_> = failed.map(|step: &Step| format!("{}: {}", step.title(), step.detail)).collect();
    let mut parts = vec![
        ("under way", under_way.collect()),
        ("open gates", ended(Kind::Gate)),
        ("steps done", ended(Kind::Step)),
    ];
    if !failed.is_empty() {
        parts.push(("failed", failed));
    }
    parts
}

fn pods(timeline: &Timeline, at: Timestamp) -> Vec<String> {
    timeline.pods.iter().filter(|pod| !pod.is_gone(at)).map(|pod| pod_line(pod, timeline, at)).collect()
}

/// How a pod stood at a moment that its story reaches to.
pub(super) fn pod_line(pod: &PodStory, timeline: &Timeline, at: Timestamp) -> String {
    let address = pod.ip.as_ref().map(|ip| format!(" ({ip})")).unwrap_or_default();
    let phase = pod.last.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let before = |then: Timestamp| at.duration_since(then).as_secs_f64().max(0.0);
    let mut line = format!("{}{address}: {phase}", pod.name);
    if pod.was_ready(at) {
        line.push_str(", Ready");
    } else {
        let events: Vec<&Event> = timeline
            .events
            .iter()
            .filter(|event| event.object.involved_object.uid.as_deref() == Some(&pod.uid))
            .map(|event| &event.object)
            .collect();
        let _ = write!(line, ", not Ready: {}", gates::pod::state(&pod.last, &events, &Clock::at(at)));
    }
    if let Some(since) = pod.at(at).and_then(|state| state.running_since) {
        let _ = write!(line, "; runs for {:.0} s", before(since));
    }
    if let Some((told, grace)) = pod.told_to_end.filter(|(told, _)| *told <= at) {
        let _ = write!(line, "; told to stop {:.1} s before, grace period {grace} s", before(told));
    }
    line
}

/// An event of the cluster, in one line.
pub(super) fn event_line(event: &EventSeen) -> String {
    format!(
        "{} {} {}: {}",
        clock(event.moment()),
        event.reason,
        event.about,
        event.message.replace('\n', " ")
    )
}

fn endpoints(timeline: &Timeline) -> Vec<String> {
    let last = timeline.endpoints.iter().filter_map(|(address, all)| Some((address, all.last()?)));
    last.filter(|(_, endpoint)| endpoint.present)
        .map(|(address, endpoint)| {
            let ready = if endpoint.ready { "ready" } else { "not ready" };
            let ending = if endpoint.terminating { ", terminating" } else { "" };
            format!("{address} {ready}{ending} ({})", endpoint.pod.as_deref().unwrap_or("no pod"))
        })
        .collect()
}

/// A load's requests at a moment.
#[derive(Default)]
struct Requests {
    in_flight: u64,
    succeeded: u64,
    failed: u64,
    /// Due, and no sender was free.
    waiting: u64,
    /// How those failed that ended around then.
    around: BTreeMap<String, u64>,
}

impl Requests {
    fn at(dir: &Path, since: SignedDuration) -> Requests {
        let at = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        let us = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        let mut requests = Requests::default();
        // What can't be read is named where the run as a whole is explained.
        let _ = for_each_line(&dir.join(RECORDS), |line| {
            let Ok(record) = serde_json::from_str::<Record>(line) else { return };
            let (due, end, sent) = (us(record.due_us), us(record.end_us), record.sent_us.map(us));
            if record.is_failure() && (end - at).abs() <= AROUND_US && record.outcome != Outcome::Unsent {
                *requests.around.entry(error_code(&record)).or_default() += 1;
            }
            if end <= at {
                let count = if record.is_failure() { &mut requests.failed } else { &mut requests.succeeded };
                *count += 1;
            } else if sent.is_some_and(|sent| sent <= at) {
                requests.in_flight += 1;
            } else if due <= at {
                requests.waiting += 1;
            }
        });
        requests
    }

    fn line(&self) -> String {
        let Requests { in_flight, succeeded, failed, waiting, around } = self;
        let mut line = format!("{in_flight} in flight; {succeeded} had succeeded, {failed} failed");
        if *waiting > 0 {
            let _ = write!(line, "; {waiting} were due and not sent");
        }
        let around: Vec<_> = around.iter().map(|(code, count)| format!("{count} × {code}")).collect();
        let around = if around.is_empty() { "none".to_owned() } else { around.join(", ") };
        let _ = write!(line, "; failed within a second of it: {around}");
        line
    }

    fn json(&self) -> Value {
        let Requests { in_flight, succeeded, failed, waiting, around } = self;
        json!({
            "in_flight": in_flight, "succeeded": succeeded, "failed": failed, "waiting": waiting,
            "failed_within_a_second": around,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_since_the_beginning_or_one_of_the_day() {
        assert_eq!("12s".parse(), Ok(At::Since(12.0)));
        assert_eq!("12.5".parse(), Ok(At::Since(12.5)));
        assert_eq!("1m30s".parse(), Ok(At::Since(90.0)));
        assert!("-3s".parse::<At>().is_err() && "soon".parse::<At>().is_err());
        let Ok(At::Clock(time)) = "00:00:01.250".parse() else { panic!("no time of day") };
        let from: Timestamp = "2026-01-02T23:59:59Z".parse().unwrap();
        assert_eq!(on_clock(from, time), "2026-01-03T00:00:01.250Z".parse().unwrap());
        let before = "23:59:58".parse().unwrap();
        assert_eq!(on_clock(from, before), "2026-01-02T23:59:58Z".parse().unwrap());
        assert_eq!("2026-01-02T23:59:59Z".parse(), Ok(At::Wall(from)));
    }
}
