//! Failures behind an entry whose log is not read: a Service's own address, or a proxy other than ingress-nginx. Nobody
//! says which pod had a request. What endpoints, pods and the app's own log show will do where it leaves but one cause;
//! where it does not, what would have to be known is named.

use super::failure::{Failure, Verdict};
use super::mechanism::Mechanism;
use super::{proxy, upstream};
use crate::ingress_nginx::NAMESPACE as INGRESS_NAMESPACE;
use crate::record::access::Attempt;
use crate::record::case::Case;
use crate::record::timeline::{EndpointAt, PodStory};
use crate::record::{earlier, later};

/// Whether a run's entry was such a one.
pub(super) fn is_entry_of(case: &Case) -> bool {
    case.access_logs == 0 && case.timeline.pods.iter().all(|pod| pod.namespace != INGRESS_NAMESPACE)
}

/// No answer, or half of one.
pub(super) fn socket_error(failure: &Failure<'_>) -> Verdict {
    let error = failure.record.error.as_deref().unwrap_or("no answer");
    let is_refused = error.to_ascii_lowercase().contains("refused");
    no_endpoint(failure).filter(|_| is_refused).unwrap_or_else(|| at_a_pod(failure, is_refused))
}

/// We did not wait longer.
pub(super) fn timeout(failure: &Failure<'_>) -> Verdict {
    match failure.app.first() {
        Some(line) => {
            let had = format!("{} logs: {}", line.pod, line.line);
            Verdict { pod: Some(line.pod.clone()), ..failure.plain(Mechanism::ClientTimeout, had) }
        }
        None => at_a_pod(failure, true),
    }
}

/// An answer that is not the app's.
pub(super) fn http_error(failure: &Failure<'_>, status: u16) -> Verdict {
    match status {
        503 => no_endpoint(failure).unwrap_or_else(|| unexplained(failure)),
        502 | 504 => no_endpoint(failure).unwrap_or_else(|| at_a_pod(failure, false)),
        _ => unexplained(failure),
    }
}

/// No endpoint was ready, which the cluster itself says.
fn no_endpoint(failure: &Failure<'_>) -> Option<Verdict> {
    let timeline = &failure.case.timeline;
    let is_app = |uid: &String| timeline.pods.iter().any(|pod| pod.uid == *uid);
    let is_of_app =
        |history: &&Vec<EndpointAt>| history.iter().any(|at| at.pod_uid.as_ref().is_some_and(is_app));
    let seen = timeline.endpoints.values().filter(is_of_app).count();
    if seen == 0 || !proxy::ready_endpoints(failure).is_empty() {
        return None;
    }
    let none = format!("none of the app's endpoints was ready, of the {seen} that were seen");
    Some(failure.verdict(Mechanism::NoEndpoint, [vec![none], proxy::standings(failure)].concat()))
}

/// What became of the request at its pod: the only one that was in trouble then, or any of several in the same trouble.
fn at_a_pod(failure: &Failure<'_>, is_refused: bool) -> Verdict {
    let troubled = troubled(failure);
    let names = troubled.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>().join(", ");
    let how =
        format!("no log of the entry is read; of the app's pods, these ended or were ending then: {names}");
    let verdict = |pod: &&PodStory| {
        let attempt = Attempt { address: address(failure, pod), seconds: None, status: None };
        if is_refused {
            upstream::refused(failure, &attempt, pod, &how)
        } else {
            upstream::dropped(failure, &attempt, pod, &how)
        }
    };
    let mut verdicts = troubled.iter().map(verdict).filter(|verdict| !verdict.is_unexplained());
    let Some(first) = verdicts.next() else { return unexplained(failure) };
    if verdicts.any(|other| other.mechanism != first.mechanism) {
        return unexplained(failure);
    }
    let pod = if let [pod] = troubled.as_slice() { Some(pod.name.clone()) } else { None };
    Verdict { pod, ..first }
}

/// The app's pods that had been told to end while the request was under way, or of which a container ended then. One
/// that the app's log names is the only one.
fn troubled<'c>(failure: &Failure<'c>) -> Vec<&'c PodStory> {
    let since = earlier(failure.sent, proxy::TOLD_LATER);
    let until = later(failure.end, proxy::TOLD_LATER);
    let had = failure.app.first().map(|line| &line.pod);
    let pods = failure.case.timeline.pods.iter();
    pods.filter(|pod| pod.namespace == failure.case.meta.namespace)
        .filter(|pod| had.is_none_or(|had| *had == pod.name))
        .filter(|pod| pod.gone.is_none_or(|gone| gone >= since))
        .filter(|pod| {
            let ended = pod.exits.iter().any(|exit| exit.at >= since && exit.at <= until);
            let vanished = pod.gone.is_some_and(|gone| gone <= until);
            ended || vanished || pod.was_ending(failure.end)
        })
        .collect()
}

/// Where the pod's endpoint is, or was.
fn address(failure: &Failure<'_>, pod: &PodStory) -> String {
    let mut endpoints = failure.case.timeline.endpoints.iter();
    let is_its = |uid: Option<&String>| uid == Some(&pod.uid);
    let found = endpoints.find(|(_, history)| history.iter().any(|at| is_its(at.pod_uid.as_ref())));
    found.map(|(address, _)| address.clone()).or_else(|| pod.ip.clone()).unwrap_or_default()
}

fn unexplained(failure: &Failure<'_>) -> Verdict {
    let missing = vec![
        format!(
            "which pod had the request, and how that ended: no log of the entry {} is read (that of \
             ingress-nginx would be)",
            failure.case.meta.entry
        ),
        format!("a log line of the app with the id {}", failure.record.id),
        "one cause in common of the app's pods that ended or were ending then".to_owned(),
    ];
    failure.unexplained(Vec::new(), missing)
}
