//! From one failure and its evidence to a verdict. Pure: the same case gives the same verdict.
//!
//! What the client saw and what the access log says narrow the mechanisms down to a few; each of those is then tested
//! against the evidence, in the order in which one hides another. The first that holds is the verdict, the others are
//! rejected with the reason. Where none holds, the verdict is that it is unexplained, and what was missing.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use xtask_load::record::{Outcome, Record};

use super::mechanism::Mechanism;
use super::{proxy, upstream};
use crate::record::access::Access;
use crate::record::case::{AppLine, Case};
use crate::record::later;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The request.
    pub record: Record,
    /// The pod that it met, where it met one.
    pub pod: Option<String>,
    /// Why.
    pub mechanism: Mechanism,
    /// What shows it, quoted.
    pub evidence: Vec<String>,
    /// What else it might have been, and what speaks against that.
    pub rejected: Vec<(Mechanism, String)>,
    /// What would have to be known to decide.
    pub missing: Vec<String>,
}

impl Verdict {
    /// Whether the evidence decides nothing.
    pub fn is_unexplained(&self) -> bool {
        self.mechanism == Mechanism::Unexplained
    }

    /// As it is in the JSON summary.
    pub fn json(&self) -> Value {
        json!({
            "request_id": self.record.id,
            "outcome": self.record.outcome,
            "status": self.record.status,
            "error": self.record.error,
            "pod": self.pod,
            "mechanism": self.mechanism.name(),
            "why": self.mechanism.title(),
            "evidence": self.evidence,
            "rejected": self.rejected.iter().map(|(m, why)| json!({"mechanism": m.name(), "because": why}))
                .collect::<Vec<_>>(),
            "missing": self.missing,
            "fix": self.mechanism.fix(),
        })
    }
}

/// How a mechanism stands up to the evidence.
pub(super) enum Test {
    /// It is it, and these lines show it.
    Holds(Vec<String>),
    /// It is not it, for this reason.
    Fails(String),
}

/// Whether a condition is so, which is all there is to it.
pub(super) fn test(holds: bool, evidence: impl FnOnce() -> Vec<String>, against: &str) -> Test {
    if holds { Test::Holds(evidence()) } else { Test::Fails(against.to_owned()) }
}

/// One failure with what belongs to it.
pub(super) struct Failure<'c> {
    pub(super) case: &'c Case,
    pub(super) record: &'c Record,
    pub(super) access: Option<&'c Access>,
    pub(super) app: &'c [AppLine],
    /// When it was over, by the clock on the wall.
    pub(super) end: Timestamp,
    /// When it was sent.
    pub(super) sent: Timestamp,
}

/// Kubernetes tells times in whole seconds, cut off.
pub(super) const CUT_OFF: SignedDuration = SignedDuration::from_secs(1);

/// The verdict on one failed request of the case.
pub fn judge(case: &Case, record: &Record) -> Verdict {
    let failure = Failure {
        case,
        record,
        access: case.access.get(&record.id).and_then(|lines| lines.last()),
        app: case.app.get(&record.id).map_or(&[], Vec::as_slice),
        end: case.wall(record.end_us),
        sent: case.wall(record.sent_us.unwrap_or(record.due_us)),
    };
    match record.outcome {
        Outcome::Dropped => failure.plain(
            Mechanism::SendersBusy,
            format!(
                "due {:.1} ms after the start and dropped {:.1} ms later: no sender was free",
                record.due_us as f64 / 1e3,
                record.end_us.saturating_sub(record.due_us) as f64 / 1e3
            ),
        ),
        // In an open loop each has its time, whether or not a sender is free.
        Outcome::Unsent if record.due_us < record.end_us => failure.plain(
            Mechanism::SendersBusy,
            format!(
                "due {:.1} ms before the run ended, and no sender was free until then",
                record.end_us.saturating_sub(record.due_us) as f64 / 1e3
            ),
        ),
        Outcome::Unsent => failure
            .plain(Mechanism::RunEnded, "it was scheduled, and the run ended before its turn".to_owned()),
        Outcome::Ok => upstream::later_try(&failure),
        Outcome::SocketError => proxy::socket_error(&failure),
        Outcome::Timeout => proxy::timeout(&failure),
        Outcome::HttpError => http_error(&failure),
    }
}

fn http_error(failure: &Failure<'_>) -> Verdict {
    let status = failure.record.status.unwrap_or_default();
    if let Some(line) = failure.app.iter().find(|line| line.status == Some(status)) {
        return by_the_app(
            failure,
            status,
            &line.pod,
            line.code.as_deref(),
            format!("{} logs: {}", line.pod, line.line),
        );
    }
    let own_words = failure.record.error.as_deref().and_then(error_code);
    if let (Some(pod), Some(code)) = (&failure.record.served_by, own_words) {
        let words = failure.record.error.as_deref().unwrap_or_default();
        return by_the_app(failure, status, pod, Some(&code), format!("{pod} answered: {words}"));
    }
    let Some(access) = failure.access else {
        let missing = vec![
            format!(
                "the access-log line with the id {} ({} logs were recorded)",
                failure.record.id, failure.case.access_logs
            ),
            format!("a log line of the app with that id and the status {status}"),
        ];
        return failure.unexplained(Vec::new(), missing);
    };
    match (access.attempts.last(), status) {
        (None, 404) => failure.plain(
            Mechanism::RouteNotSynced,
            format!("the upstream is `{}`, and no pod was asked", access.upstream),
        ),
        (None, 503) => proxy::no_endpoint(failure, access),
        (None, 400..=499) => failure.plain(Mechanism::RefusedByProxy, "no pod was asked".to_owned()),
        (Some(_), 502) => upstream::bad_gateway(failure, access),
        (Some(_), 504) => upstream::gateway_timeout(failure, access),
        _ => {
            let missing = vec![format!("a log line of the app with the id and the status {status}")];
            failure.unexplained(Vec::new(), missing)
        }
    }
}

/// An answer that the app itself gave.
fn by_the_app(failure: &Failure<'_>, status: u16, pod: &str, code: Option<&str>, words: String) -> Verdict {
    let story = failure.case.timeline.pods.iter().find(|story| story.name == pod);
    let is_ending = story.is_some_and(|story| story.was_ending(failure.end));
    // A container that a liveness probe had told to end drains as one does whose pod was deleted.
    let killing = story.and_then(|story| {
        let event = upstream::liveness_kill(failure, story, failure.end)?;
        let since = story.at(failure.end).and_then(|state| state.running_since);
        since.is_none_or(|since| since <= event.at).then_some(event)
    });
    let mut evidence = vec![words];
    let mechanism = match (status, code) {
        (429, _) | (503, Some("QUEUE_FULL")) => Mechanism::BackPressure,
        (503, Some("MODEL_NOT_LOADED")) if is_ending => {
            evidence.extend(story.map(|story| upstream::ending_line(story, failure.end)));
            Mechanism::ShutdownRace
        }
        (503, Some("MODEL_NOT_LOADED")) if killing.is_some() => {
            evidence.extend(killing.map(upstream::event_line));
            Mechanism::LivenessRestart
        }
        (503, Some("MODEL_NOT_LOADED")) => {
            evidence.extend(story.map(|story| upstream::starting_line(story, failure.end)));
            Mechanism::NotReadyYet
        }
        (500.., _) => Mechanism::ApplicationError,
        _ => Mechanism::RequestRefused,
    };
    let mut verdict = failure.verdict(mechanism, evidence);
    verdict.pod = Some(pod.to_owned());
    let against = format!("the app answered {status} itself");
    for other in [Mechanism::NoEndpoint, Mechanism::Crash] {
        verdict.rejected.push((other, against.clone()));
    }
    verdict
}

/// The code in an error of the app: `{"success":false,"error":{"code":...}}`; what was kept of it may be cut off.
fn error_code(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("\"code\":")?;
    rest.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned)
}

impl Failure<'_> {
    /// Whether a moment lies in the run; what was before has caused nothing in it.
    pub(super) fn in_run(&self, at: Timestamp) -> bool {
        later(at, CUT_OFF) >= self.case.meta.began
    }

    /// A verdict that one line shows.
    pub(super) fn plain(&self, mechanism: Mechanism, line: String) -> Verdict {
        self.verdict(mechanism, vec![line])
    }

    /// A verdict; what client and proxy saw comes first in its evidence.
    pub(super) fn verdict(&self, mechanism: Mechanism, evidence: Vec<String>) -> Verdict {
        Verdict {
            record: self.record.clone(),
            pod: self.record.served_by.clone(),
            mechanism,
            evidence: self.seen().into_iter().chain(evidence).collect(),
            rejected: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// The verdict that there is none.
    pub(super) fn unexplained(&self, rejected: Vec<(Mechanism, String)>, missing: Vec<String>) -> Verdict {
        let mut missing = missing;
        if let Some(end) = &self.case.meta.end {
            missing.extend(end.gaps.iter().map(|gap| format!("the recording has a gap: {gap}")));
        }
        Verdict { rejected, missing, ..self.verdict(Mechanism::Unexplained, Vec::new()) }
    }

    /// The first mechanism that holds; if none does, what would have to be known.
    pub(super) fn first(&self, tests: Vec<(Mechanism, Test)>, missing: Vec<String>) -> Verdict {
        let mut found = None;
        let mut rejected = Vec::new();
        for (mechanism, test) in tests {
            match test {
                Test::Holds(evidence) if found.is_none() => found = Some((mechanism, evidence)),
                // What holds as well is a weaker word for the same.
                Test::Holds(_) => {}
                Test::Fails(why) => rejected.push((mechanism, why)),
            }
        }
        match found {
            Some((mechanism, evidence)) => Verdict { rejected, ..self.verdict(mechanism, evidence) },
            None => self.unexplained(rejected, missing),
        }
    }

    fn seen(&self) -> Vec<String> {
        let mut seen = Vec::new();
        let ms = |us: u64| us as f64 / 1e3;
        if let Some(sent) = self.record.sent_us {
            let took = ms(self.record.end_us.saturating_sub(sent));
            let what = match (self.record.outcome, self.record.status) {
                (Outcome::HttpError | Outcome::Ok, Some(status)) => format!("answered {status}"),
                _ => self.record.error.clone().unwrap_or_else(|| "no answer".to_owned()),
            };
            seen.push(format!("client: sent {}, {what} after {took:.1} ms", clock(self.sent)));
        }
        if let Some(access) = self.access {
            seen.push(format!("access log of {}: {}", access.controller, access.line));
        }
        seen
    }
}

/// A moment as people compare them: the time of day, to the millisecond.
pub(super) fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%S.%3f").to_string()
}
