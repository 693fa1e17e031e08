//! The gates' rules, case by case, and their drivers against an API server whose controllers the tests play.

mod api;
mod autoscaler;
mod cluster;
mod drivers;
mod ingress;
mod objects;
mod rollout;
mod rollout_failures;
mod route;

use super::Verdict;
use super::clock::Clock;

/// Noon of the day on which all cases play.
const NOON: &str = "2026-03-01T12:00:00Z";

/// So many seconds after noon, or before.
fn at(seconds: i64) -> jiff::Timestamp {
    let noon: jiff::Timestamp = NOON.parse().unwrap();
    noon.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap()
}

fn clock(seconds: i64) -> Clock {
    Clock::at(at(seconds))
}

/// A verdict in one line: its first letter says which it is.
fn line<T>(verdict: &Verdict<T>) -> String {
    match verdict {
        Verdict::Open(_, line) => format!("open: {line}"),
        Verdict::Closed(line) => format!("closed: {line}"),
        Verdict::Suspect(line) => format!("suspect: {line}"),
        Verdict::Doomed(line, _) => format!("doomed: {line}"),
    }
}

/// Checks that a verdict's line is so.
#[track_caller]
fn expect<T>(verdict: &Verdict<T>, wanted: &str) {
    assert_eq!(line(verdict), wanted);
}
