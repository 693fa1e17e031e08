//! Failures before any pod was asked: the connection, the proxy, the service without endpoints.

use jiff::{SignedDuration, Timestamp};
use xtask_load::run::GIVEN_UP;

use super::failure::{Failure, Test, Verdict, clock, test};
use super::mechanism::Mechanism;
use crate::ingress_nginx::NAMESPACE as INGRESS_NAMESPACE;
use crate::record::access::Access;
use crate::record::timeline::PodStory;
use crate::record::{earlier, later};

/// How much later than the broken connection the end of the proxy may be told.
pub(super) const TOLD_LATER: SignedDuration = SignedDuration::from_secs(2);

/// A controller knows of an endpoint after this: it syncs 0.3 times a second, its workers look once a second.
const SYNC_LAG: SignedDuration = SignedDuration::from_secs(5);

/// No answer for a reason of the generator's own.
pub(super) fn own_doing(failure: &Failure<'_>) -> Option<Verdict> {
    let error = failure.record.error.as_deref().unwrap_or_default();
    if failure.record.is_own_limit() {
        let line = format!("this machine refused the connection: {error}");
        return Some(failure.plain(Mechanism::GeneratorLimit, line));
    }
    let stopped = || "it was in flight when the run was stopped".to_owned();
    (error == GIVEN_UP).then(|| failure.plain(Mechanism::RunStopped, stopped()))
}

/// The client has no answer, or half of one.
pub(super) fn socket_error(failure: &Failure<'_>) -> Verdict {
    let error = failure.record.error.as_deref().unwrap_or("no answer");
    let controllers = controllers(failure);
    let ended = controller_that_ended(failure);
    let refused = error.to_ascii_lowercase().contains("refused");
    let ready = controllers.iter().filter(|pod| pod.at(failure.end).is_some_and(|state| state.ready)).count();
    let logged = failure.access.is_some();
    let no_line =
        || format!("no access log ({} recorded) has the id {}", failure.case.access_logs, failure.record.id);
    let standing = || format!("{ready} of {} ingress controller pods were Ready", controllers.len());
    let tests = vec![
        (
            Mechanism::ProxyEnded,
            match &ended {
                Some(line) if !refused => Test::Holds(vec![line.clone()]),
                Some(_) => Test::Fails("the connection was never made".to_owned()),
                None => Test::Fails("no ingress controller pod ended or was told to stop then".to_owned()),
            },
        ),
        (
            Mechanism::NeverReachedProxy,
            test(
                !logged && (refused || (ready == 0 && !controllers.is_empty())),
                || [vec![no_line(), standing()], ended.clone().into_iter().collect()].concat(),
                if logged {
                    "the access log has it"
                } else {
                    "an ingress controller was Ready, and the connection was made"
                },
            ),
        ),
    ];
    let missing = vec![
        "an end or a restart of the ingress controller at that time".to_owned(),
        if logged { "why the answer did not arrive".to_owned() } else { no_line() },
    ];
    failure.first(tests, missing)
}

/// We did not wait longer.
pub(super) fn timeout(failure: &Failure<'_>) -> Verdict {
    if let Some(verdict) = super::upstream::never_had_it(failure) {
        return verdict;
    }
    match failure.access {
        Some(access) => {
            let met = access.attempts.last();
            let pod = met.and_then(|met| failure.case.timeline.pod_at(&met.address, failure.sent));
            let mut evidence = Vec::new();
            if let (Some(met), Some(pod)) = (met, pod) {
                evidence.push(format!("{} had it ({})", pod.name, met.address));
            }
            evidence.extend(failure.app.iter().map(|line| format!("{} logs: {}", line.pod, line.line)));
            let mut verdict = failure.verdict(Mechanism::ClientTimeout, evidence);
            verdict.pod = pod.map(|pod| pod.name.clone()).or(verdict.pod);
            verdict.rejected.push((
                Mechanism::NeverReachedProxy,
                format!("the proxy logged it, with status {}", access.status),
            ));
            verdict
        }
        None => {
            let ended = controller_that_ended(failure);
            let tests = vec![(
                Mechanism::ProxyEnded,
                ended.map_or_else(
                    || Test::Fails("no ingress controller pod ended then".to_owned()),
                    |line| Test::Holds(vec![line]),
                ),
            )];
            let missing = vec![format!(
                "the access-log line with the id {} ({} logs were recorded)",
                failure.record.id, failure.case.access_logs
            )];
            failure.first(tests, missing)
        }
    }
}

/// 503, and no pod was asked.
pub(super) fn no_endpoint(failure: &Failure<'_>, access: &Access) -> Verdict {
    let unknown = "the upstream's address is `-`: the proxy knew no ready endpoint".to_owned();
    let ready = ready_endpoints(failure);
    let known_late = ready.iter().filter(|(_, since)| later(*since, SYNC_LAG) <= failure.sent).count();
    let tests = vec![
        (Mechanism::ControllerNotSynced, not_synced(failure, access, &ready)),
        (
            Mechanism::NoEndpoint,
            test(
                known_late == 0,
                || [vec![unknown], standings(failure)].concat(),
                &format!("{known_late} endpoints of the app had been ready for more than {SYNC_LAG:#}"),
            ),
        ),
    ];
    let missing =
        vec![format!("why {} did not know the ready endpoints: its own state and log", access.controller)];
    let mut verdict = failure.first(tests, missing);
    verdict.rejected.push((Mechanism::BackPressure, "no pod was asked, so none refused".to_owned()));
    verdict
}

/// The app's endpoints that were ready when the request was sent, and since when that was seen.
pub(super) fn ready_endpoints<'c>(failure: &Failure<'c>) -> Vec<(&'c str, Timestamp)> {
    let timeline = &failure.case.timeline;
    let is_app = |uid: &str| {
        timeline.pods.iter().any(|pod| pod.uid == uid && pod.namespace == failure.case.meta.namespace)
    };
    let ready = timeline.endpoints.iter().filter_map(|(address, history)| {
        let until = history.partition_point(|endpoint| endpoint.at <= failure.sent);
        let now =
            history[..until].last().filter(|now| now.ready && now.pod_uid.as_deref().is_some_and(is_app))?;
        let since = history[..until].iter().rev().take_while(|endpoint| endpoint.ready).last().unwrap_or(now);
        Some((address.as_str(), since.at))
    });
    ready.collect()
}

/// Whether the controller that answered was new, while the app's endpoints were ready.
fn not_synced(failure: &Failure<'_>, access: &Access, ready: &[(&str, Timestamp)]) -> Test {
    let controller = failure
        .case
        .timeline
        .pods
        .iter()
        .find(|pod| pod.namespace == INGRESS_NAMESPACE && pod.name == access.controller);
    let Some((controller, state)) = controller.and_then(|pod| Some((pod, pod.at(failure.end)?))) else {
        return Test::Fails(format!("the state of {} was not recorded", access.controller));
    };
    let is_new = state.running_since.is_none_or(|since| failure.in_run(since));
    if state.ready || !is_new {
        return Test::Fails(format!("{} had been Ready", access.controller));
    }
    if ready.is_empty() {
        return Test::Fails("no endpoint of the app was ready".to_owned());
    }
    let addresses: Vec<&str> = ready.iter().map(|(address, _)| *address).collect();
    let said = failure.case.syncs.get(&access.controller).into_iter().flatten();
    let said = said.rev().find(|message| message.at <= failure.end);
    let mut evidence = vec![
        super::upstream::age_line(controller, failure.end),
        format!("ready endpoints of the app, which it did not know: {}", addresses.join(", ")),
    ];
    evidence.extend(said.map(|message| format!("{} says: {}", access.controller, message.line)));
    Test::Holds(evidence)
}

/// How the app's pods stood, and what the cluster said of them shortly before.
pub(super) fn standings(failure: &Failure<'_>) -> Vec<String> {
    let timeline = &failure.case.timeline;
    let app = timeline.pods.iter().filter(|pod| pod.namespace == failure.case.meta.namespace);
    let alive: Vec<_> = app
        .filter(|pod| pod.states.first().is_some_and(|first| first.at <= failure.end))
        .filter(|pod| pod.gone.is_none_or(|gone| gone > failure.sent))
        .collect();
    let mut lines: Vec<String> = alive.iter().take(10).map(|pod| standing(pod, failure)).collect();
    if alive.is_empty() {
        lines.push("there was no pod of the app".to_owned());
    }
    let since = SignedDuration::from_secs(30);
    let warnings = timeline.events.iter().filter(|event| {
        event.at <= failure.end
            && event.at >= earlier(failure.sent, since)
            && failure.in_run(event.at)
            && alive.iter().any(|pod| pod.name == event.about)
            && matches!(event.reason.as_str(), "Unhealthy" | "BackOff" | "Killing" | "FailedScheduling")
    });
    lines.extend(warnings.take(5).map(super::upstream::event_line));
    lines
}

fn standing(pod: &PodStory, failure: &Failure<'_>) -> String {
    let name = &pod.name;
    let state = pod.at(failure.end);
    match state {
        _ if pod.was_ending(failure.end) => super::upstream::ending_line(pod, failure.end),
        Some(state) if state.ready => format!("{name} was Ready since before, the proxy did not know it yet"),
        Some(state) if state.running_since.is_some() => super::upstream::starting_line(pod, failure.end),
        _ => match pod.exits.iter().rev().find(|exit| exit.at <= failure.end) {
            Some(exit) => format!("{name}: not running, {}", super::upstream::exit_line(pod, exit)),
            None => format!("{name}: no container was running yet"),
        },
    }
}

fn controllers<'c>(failure: &Failure<'c>) -> Vec<&'c PodStory> {
    let pods = failure.case.timeline.pods.iter();
    pods.filter(|pod| pod.namespace == INGRESS_NAMESPACE)
        .filter(|pod| pod.states.first().is_some_and(|first| first.at <= failure.end))
        .filter(|pod| pod.gone.is_none_or(|gone| gone + TOLD_LATER > failure.sent))
        .collect()
}

/// The controller pod that ended while the request was under way, in words.
fn controller_that_ended(failure: &Failure<'_>) -> Option<String> {
    controllers(failure).into_iter().find_map(|pod| {
        let soon = later(failure.end, TOLD_LATER);
        if let Some((told, _)) = pod.told_to_end.filter(|(told, _)| *told <= soon) {
            return Some(format!("ingress controller {}: told to stop at {}", pod.name, clock(told)));
        }
        let exit =
            pod.exits.iter().find(|exit| exit.at >= earlier(failure.sent, TOLD_LATER) && exit.at <= soon)?;
        Some(format!("ingress controller {}", super::upstream::exit_line(pod, exit)))
    })
}
