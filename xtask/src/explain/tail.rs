//! Slow answers: where each one's time went, and why. The part that took most beyond what is usual decides; the
//! evidence and the mechanisms are those of failures.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use xtask_load::record::Record;

use super::failure::{Failure, Verdict, clock};
use super::mechanism::Mechanism;
use super::upstream;
use crate::record::access::Access;
use crate::record::case::{Case, Typical};
use crate::record::tail::latency_us;
use crate::record::{earlier, later};

/// A pod's first requests after it became Ready: so many.
const FIRST_REQUESTS: usize = 5;
/// What a controller says about itself is about a request so close to it.
const NEAR: SignedDuration = SignedDuration::from_secs(1);

/// A slow answer, and why it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Slow {
    /// Why.
    pub verdict: Verdict,
    /// Where its time went.
    pub parts: Parts,
    /// The part that decides.
    pub most: Part,
}

/// Where the time of an answer went, in milliseconds. Before it was sent, lost tries, the pod and the way add up to its
/// latency; what the app says is within the pod's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Parts {
    /// From when it was due until it was sent.
    pub unsent: f64,
    /// At pods that did not answer, before another did.
    pub lost_tries: f64,
    /// At the pod that answered; nothing where neither proxy nor app tells.
    pub pod: Option<f64>,
    /// Of that: in the app, by its own word.
    pub app: Option<f64>,
    /// Of that: waiting in the app's queue.
    pub queue: Option<f64>,
    /// Of that: denied the CPU by the container's limit.
    pub throttled: Option<f64>,
    /// Between client, proxy and pod; of an answer of which only the client tells, all since it was sent.
    pub way: f64,
}

/// One of the places where time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// From when it was due until it was sent.
    Unsent,
    /// At pods that did not answer.
    LostTries,
    /// Denied the CPU.
    Throttled,
    /// In the app's queue.
    Queue,
    /// In the app, beyond that.
    App,
    /// At the pod, beyond what the app says.
    Pod,
    /// Between client, proxy and pod.
    Way,
}

impl Part {
    /// In a few words.
    pub fn title(self) -> &'static str {
        match self {
            Part::Unsent => "before it was sent",
            Part::LostTries => "lost tries",
            Part::Throttled => "throttled CPU",
            Part::Queue => "the app's queue",
            Part::App => "the app",
            Part::Pod => "the pod",
            Part::Way => "on the way",
        }
    }
}

impl Parts {
    fn of(failure: &Failure<'_>) -> Parts {
        let record = failure.record;
        let sent_us = record.sent_us.unwrap_or(record.due_us);
        let ms = |us: u64| us as f64 / 1e3;
        let since_sent = ms(record.end_us.saturating_sub(sent_us));
        let timing = timing(record);
        let part = |name: &str| timing.get(name).copied();
        let logged = failure.app.iter().rev().find_map(|line| line.took_ms);
        // Without the app's own total, the parts that it names are as much as is known.
        let named: Option<f64> = (!timing.is_empty())
            .then(|| ["preprocess", "queue", "inference"].iter().filter_map(|name| part(name)).sum());
        let app = logged.or(named);
        let tries = failure.access.map(tries_ms);
        let lost_tries = tries.map_or(0.0, |(lost, _)| lost).min(since_sent);
        let pod = tries.map(|(_, last)| last).or(app).map(|pod| pod.min(since_sent - lost_tries));
        Parts {
            unsent: ms(sent_us.saturating_sub(record.due_us)),
            lost_tries,
            pod,
            // A clock of a second machine may tell a little more.
            app: app.zip(pod).map(|(app, pod)| app.min(pod)),
            queue: part("queue"),
            throttled: part("throttled"),
            way: since_sent - lost_tries - pod.unwrap_or_default(),
        }
    }

    /// What a part took.
    pub fn ms(&self, part: Part) -> f64 {
        match part {
            Part::Unsent => self.unsent,
            Part::LostTries => self.lost_tries,
            Part::Throttled => self.throttled.unwrap_or_default(),
            Part::Queue => self.queue.unwrap_or_default(),
            Part::App => self.app.unwrap_or_default(),
            Part::Pod => self.pod.unwrap_or_default(),
            Part::Way => self.way,
        }
    }

    /// The part that took most beyond what is usual; half of all answers took less than `median_ms`.
    fn most(&self, usual: Typical, median_ms: f64) -> Part {
        let (queue, throttled) = (self.ms(Part::Queue), self.ms(Part::Throttled));
        let app = self.app.map_or(0.0, |app| app - queue - throttled - usual.app_ms);
        let pod = self.pod.unwrap_or_default();
        let beyond_the_app = match self.app {
            Some(app) => pod - app - (usual.pod_ms - usual.app_ms).max(0.0),
            None => pod - usual.pod_ms,
        };
        let beyond = [
            (Part::Unsent, self.unsent),
            (Part::LostTries, self.lost_tries),
            (Part::Throttled, throttled),
            (Part::Queue, queue),
            (Part::App, app),
            (Part::Pod, beyond_the_app),
            (Part::Way, self.way - (median_ms - usual.pod_ms).max(0.0)),
        ];
        beyond.into_iter().rev().max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(Part::Way, |(part, _)| part)
    }

    /// All of it in a line, the largest first.
    pub fn line(&self) -> String {
        let mut parts =
            [Part::Unsent, Part::LostTries, Part::Pod, Part::Way].map(|part| (part, self.ms(part)));
        parts.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let within = [Part::App, Part::Queue, Part::Throttled].map(|part| (part, self.ms(part)));
        let within: Vec<_> = within.into_iter().filter(|(_, ms)| *ms > 0.0).map(text).collect();
        let whole =
            parts.into_iter().filter(|(part, ms)| *ms >= 0.05 || *part == Part::Pod).map(|(part, ms)| {
                let more = if part == Part::Pod && !within.is_empty() {
                    format!(" (of which {})", within.join(", "))
                } else {
                    String::new()
                };
                text((part, ms)) + &more
            });
        whole.collect::<Vec<_>>().join(", ")
    }

    /// The middle of each part over a group.
    pub fn median(group: &[&Slow]) -> Parts {
        let middle = |pick: &dyn Fn(&Parts) -> Option<f64>| {
            let mut all: Vec<f64> = group.iter().filter_map(|slow| pick(&slow.parts)).collect();
            all.sort_unstable_by(f64::total_cmp);
            all.get(all.len() / 2).copied()
        };
        Parts {
            unsent: middle(&|parts| Some(parts.unsent)).unwrap_or_default(),
            lost_tries: middle(&|parts| Some(parts.lost_tries)).unwrap_or_default(),
            pod: middle(&|parts| parts.pod),
            app: middle(&|parts| parts.app),
            queue: middle(&|parts| parts.queue),
            throttled: middle(&|parts| parts.throttled),
            way: middle(&|parts| Some(parts.way)).unwrap_or_default(),
        }
    }
}

fn text((part, ms): (Part, f64)) -> String {
    format!("{ms:.1} ms {}", part.title())
}

/// How long the tries took that came to nothing, and the last one, in milliseconds.
fn tries_ms(access: &Access) -> (f64, f64) {
    let ms = |seconds: Option<f64>| seconds.unwrap_or_default() * 1e3;
    let Some((last, lost)) = access.attempts.split_last() else { return (0.0, 0.0) };
    (lost.iter().map(|attempt| ms(attempt.seconds)).sum(), ms(last.seconds))
}

/// The parts that the server names, in milliseconds: `queue;dur=1.5, inference;dur=80.1`.
fn timing(record: &Record) -> BTreeMap<&str, f64> {
    fn part(part: &str) -> Option<(&str, f64)> {
        let (name, fields) = part.trim().split_once(';')?;
        let ms: f64 = fields.split(';').find_map(|field| field.trim().strip_prefix("dur="))?.parse().ok()?;
        (ms.is_finite() && ms >= 0.0).then_some((name.trim_end(), ms))
    }
    record.server_timing.as_deref().unwrap_or_default().split(',').filter_map(part).collect()
}

/// Where the time of a slow answer went, and why.
pub fn slow(case: &Case, record: &Record) -> Slow {
    let failure = Failure::of(case, record);
    let parts = Parts::of(&failure);
    let most = parts.most(case.typical, case.tail.median_us as f64 / 1e3);
    let mut verdict = verdict(&failure, &parts, most);
    verdict.evidence.push(format!("of {:.1} ms: {}", latency_us(record) as f64 / 1e3, parts.line()));
    Slow { verdict, parts, most }
}

fn verdict(failure: &Failure<'_>, parts: &Parts, most: Part) -> Verdict {
    match most {
        Part::Unsent => unsent(failure, parts),
        Part::LostTries => upstream::lost_try(failure),
        Part::Way => way(failure, parts),
        Part::Throttled => at_the_pod(failure, Mechanism::CpuThrottled),
        Part::Queue => at_the_pod(failure, Mechanism::Queued),
        Part::App => at_the_pod(failure, Mechanism::SlowApp),
        Part::Pod => at_the_pod(failure, Mechanism::SlowPod),
    }
}

/// Sent long after it was due.
fn unsent(failure: &Failure<'_>, parts: &Parts) -> Verdict {
    let case = failure.case;
    let busy = case.flights.under_way(failure.record.due_us);
    let late = format!("due {:.1} ms before it was sent", parts.unsent);
    match senders(&case.meta.plan) {
        // A sender is between two requests for a moment.
        Some(senders) if busy * 10 >= senders * 9 => {
            let line = format!("{busy} of {senders} senders were busy when it was due");
            failure.verdict(Mechanism::SendersBusy, vec![late, line])
        }
        senders => {
            let of = senders.map_or_else(String::new, |senders| format!(" of {senders}"));
            let line = format!("{busy}{of} senders were busy when it was due: one was free and woke up late");
            failure.verdict(Mechanism::GeneratorLate, vec![late, line])
        }
    }
}

/// Neither before it was sent nor at a pod.
fn way(failure: &Failure<'_>, parts: &Parts) -> Verdict {
    let case = failure.case;
    if parts.pod.is_none() {
        let missing = vec![
            format!(
                "the access-log line with the id {} ({} logs were recorded)",
                failure.record.id, case.access_logs
            ),
            "a line of the app's log with that id".to_owned(),
        ];
        return failure.unexplained(Vec::new(), missing);
    }
    let sent = failure.record.sent_us.unwrap_or(failure.record.due_us);
    let own = u64::from(parts.unsent > 5.0);
    let (late, longest) = case.flights.held_up(sent.saturating_sub(50_000), failure.record.end_us + 50_000);
    if late as u64 > own || own > 0 {
        let line = format!(
            "{late} requests around it were sent late, by up to {:.1} ms: this machine had no time for them",
            longest.as_secs_f64() * 1e3
        );
        return failure.verdict(Mechanism::GeneratorLate, vec![line]);
    }
    let near = |at: Timestamp| at >= earlier(failure.sent, NEAR) && at <= later(failure.end, NEAR);
    let syncs = case.syncs.values().flatten().filter(|message| near(message.at));
    let syncs = syncs.map(|message| format!("the ingress controller says: {}", message.line));
    failure.verdict(Mechanism::OnTheWay, syncs.take(3).collect())
}

/// At the pod that answered.
fn at_the_pod(failure: &Failure<'_>, mechanism: Mechanism) -> Verdict {
    let timeline = &failure.case.timeline;
    let address = failure.access.and_then(|access| access.attempts.last()).map(|attempt| &attempt.address);
    let pod = match (&failure.record.served_by, address) {
        (Some(name), _) => timeline.pods.iter().find(|pod| pod.name == *name),
        (None, Some(address)) => timeline.pod_at(address, failure.end),
        (None, None) => None,
    };
    let mut evidence: Vec<String> =
        failure.app.iter().map(|line| format!("{} logs: {}", line.pod, line.line)).collect();
    evidence.extend(
        failure
            .record
            .server_timing
            .as_ref()
            .map(|timing| format!("the app answered: server-timing: {timing}")),
    );
    let Typical { pod_ms, app_ms } = failure.case.typical;
    evidence.push(format!("as a rule a pod took {pod_ms:.1} ms, and the app in it {app_ms:.1} ms"));
    let mut cold = None;
    if let (Some(pod), Some(address)) = (pod, address)
        && let Some(ready) = pod.ready_since(failure.sent)
    {
        let line = failure.access.and_then(|access| access.at).unwrap_or(failure.end);
        let uses = failure.case.uses.get(address);
        let nth = uses.map_or(0, |uses| uses.range(ready..=line.max(ready)).count());
        if nth <= FIRST_REQUESTS {
            cold = Some(format!(
                "pod {}: Ready from {}, {:.1} s before; this was request {nth} that it has had since",
                pod.name,
                clock(ready),
                failure.sent.duration_since(ready).as_secs_f64()
            ));
        }
    }
    let is_cold = cold.is_some() && mechanism != Mechanism::CpuThrottled;
    evidence.extend(cold);
    let mut verdict = failure.verdict(if is_cold { Mechanism::ColdPod } else { mechanism }, evidence);
    verdict.pod = pod.map(|pod| pod.name.clone()).or(verdict.pod);
    if failure.app.is_empty() && failure.record.server_timing.is_none() {
        verdict.missing.push("how long the app itself took: no line of its log has the id".to_owned());
    }
    verdict
}

/// How many senders a plan has, from its line: `…, at most 256 at a time`.
fn senders(plan: &str) -> Option<usize> {
    let (before, _) = plan.rsplit_once(" at a time")?;
    before.rsplit(' ').next()?.parse().ok()
}

impl Slow {
    /// How long it took, from when it was due, in milliseconds.
    pub fn ms(&self) -> f64 {
        latency_us(&self.verdict.record) as f64 / 1e3
    }

    /// As it is in the JSON summary.
    pub fn json(&self) -> Value {
        let mut json = self.verdict.json();
        json["latency_ms"] = json!(self.ms());
        json["parts_ms"] = json!(self.parts);
        json["most"] = json!(self.most);
        json
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use xtask_load::run::Plan;
    use xtask_load::schedule::{Pace, Schedule};

    use super::*;

    #[test]
    fn the_senders_of_a_plan_are_read_from_its_line() {
        for pace in
            [Pace::Closed, Pace::Open { rate: 50.0, ramp_up: Duration::ZERO, ramp_down: Duration::ZERO }]
        {
            let schedule = Schedule { pace, requests: Some(10), duration: None };
            let plan = Plan { schedule, concurrency: 256, request_timeout: Duration::from_secs(30) };
            assert_eq!(senders(&plan.line()), Some(256), "{}", plan.line());
        }
        assert_eq!(senders(""), None);
    }
}
