//! From one failure and its evidence to a verdict. Pure: the same case gives the same verdict.
//!
//! What the client saw and what the access log says narrow the mechanisms down to a few; each of those is then tested
//! against the evidence, in the order in which one hides another. The first that holds is the verdict, the others are
//! rejected with the reason. Where none holds, the verdict is that it is unexplained, and what was missing.

use xtask_load::record::{Outcome, Record};

use super::failure::{Failure, Verdict};
use super::mechanism::Mechanism;
use super::{proxy, tail, unlogged, upstream};
use crate::record::case::Case;

/// The verdict on one failed request of the case.
pub fn judge(case: &Case, record: &Record) -> Verdict {
    let failure = Failure::of(case, record);
    let unlogged = unlogged::is_entry_of(case);
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
        Outcome::Ok => tail::slow(case, record).verdict,
        Outcome::SocketError => proxy::own_doing(&failure).unwrap_or_else(|| {
            if unlogged { unlogged::socket_error(&failure) } else { proxy::socket_error(&failure) }
        }),
        Outcome::Timeout if unlogged => unlogged::timeout(&failure),
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
    if unlogged::is_entry_of(failure.case) {
        return unlogged::http_error(failure, status);
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
