//! One request that failed or was slow, with what belongs to it, and the verdicts that can be made of it.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use xtask_load::record::{Outcome, Record};

use super::mechanism::Mechanism;
use crate::record::access::Access;
use crate::record::case::{AppLine, Case};
use crate::record::later;

/// Why a request failed, or was slow.
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
    /// What prevents it.
    pub fix: String,
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
            "fix": self.fix,
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

/// One request that failed or was slow, with what belongs to it.
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

impl<'c> Failure<'c> {
    /// A request with what is known of it.
    pub(super) fn of(case: &'c Case, record: &'c Record) -> Failure<'c> {
        Failure {
            case,
            record,
            access: case.access.get(&record.id).and_then(|lines| lines.last()),
            app: case.app.get(&record.id).map_or(&[], Vec::as_slice),
            end: case.wall(record.end_us),
            sent: case.wall(record.sent_us.unwrap_or(record.due_us)),
        }
    }

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
            fix: self.fix(mechanism),
        }
    }

    /// What prevents a mechanism; a run that left just that out need not be told to add it.
    fn fix(&self, mechanism: Mechanism) -> String {
        let left_out = self.case.meta.without.as_deref();
        match left_out.filter(|without| mechanism.prevented_by().contains(without)) {
            Some(without) => {
                format!("none is needed: `{without}` prevents it, which this run left out on purpose")
            }
            None => mechanism.fix().to_owned(),
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
