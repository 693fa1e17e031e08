//! What a pod is at, in few words.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, Event, HTTPGetAction, Pod, Probe,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::clock::Clock;
use crate::kubernetes::{event_time, one_line, pod_condition};

mod signs;

pub use signs::{ANY_NODE, Grace, REFUSAL_GRACE, Sign, signs, unsteady};

/// The kind of a volume claim.
pub const CLAIM: &str = "PersistentVolumeClaim";
/// A line that says how long something lasts is renewed this often.
const REFRESH: Duration = Duration::from_secs(5);

/// The pod's name.
#[must_use]
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// What tells the pod from its siblings: the last part of its name.
#[must_use]
pub fn short(pod: &Pod) -> &str {
    name(pod).rsplit('-').next().unwrap_or_default()
}

/// Whether the pod has run to its end, or was evicted; its controller replaces such a pod.
#[must_use]
pub fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod has run to a good end.
#[must_use]
pub fn has_succeeded(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded")
}

/// Whether a container, such as one that prepares the others, has ended well.
#[must_use]
pub fn has_done_its_work(status: &ContainerStatus) -> bool {
    let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    ended.is_some_and(|ended| ended.exit_code == 0)
}

/// Whether a container of it has ended with an error, which a Job may count.
#[must_use]
pub fn has_crashed(pod: &Pod) -> bool {
    statuses(pod).any(|status| status.restart_count > 0 || failed_end(status).is_some())
}

/// How a container of it ended that did not end well.
#[must_use]
pub fn last_ending(pod: &Pod) -> Option<String> {
    statuses(pod)
        .find_map(|status| Some(format!("container {} {}", status.name, ending(failed_end(status)?))))
}

fn failed_end(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let ended = status.state.as_ref()?.terminated.as_ref()?;
    (ended.exit_code != 0).then_some(ended)
}

/// The containers with their statuses, init containers first, as they run.
pub fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    })
}

fn container<'p>(pod: &'p Pod, name: &str) -> Option<&'p Container> {
    pod.spec.as_ref()?.containers.iter().find(|container| container.name == name)
}

/// How long the pod's own probes let a container start: the startup probe's budget, or without one the time after
/// which the readiness probe calls it unready. Defaults as in the API's reference.
#[must_use]
pub fn startup_budget(pod: &Pod) -> Duration {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let probes = containers.filter_map(|c| c.startup_probe.as_ref().or(c.readiness_probe.as_ref()));
    probes.map(budget).max().unwrap_or_default()
}

fn budget(probe: &Probe) -> Duration {
    let seconds =
        |value: Option<i32>, default: u64| value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default);
    let period = seconds(probe.period_seconds, 10).max(1);
    Duration::from_secs(
        seconds(probe.initial_delay_seconds, 0)
            + seconds(probe.failure_threshold, 3).max(1).saturating_mul(period),
    )
}

/// Whether a container is still inside the time that its startup probe gives it.
pub fn starts_in_time(pod: &Pod, clock: &Clock) -> bool {
    statuses(pod).any(|status| {
        let probe = container(pod, &status.name).and_then(|c| c.startup_probe.as_ref());
        match (probe, running_since(status)) {
            (Some(probe), Some(since)) if status.started != Some(true) => !clock.passed(since, budget(probe)),
            _ => false,
        }
    })
}

fn running_since(status: &ContainerStatus) -> Option<Timestamp> {
    let Time(since) = status.state.as_ref()?.running.as_ref()?.started_at.as_ref()?;
    Some(*since)
}

/// What the pod is at, in few words, without its name.
pub fn state(pod: &Pod, events: &[&Event], clock: &Clock) -> String {
    if let Some(sign) = signs(pod, events, clock).into_iter().next() {
        return sign.text;
    }
    if pod_condition(pod, "PodScheduled").is_none_or(|scheduled| !scheduled.is_true()) {
        return match pod_condition(pod, "PodScheduled").filter(|c| !c.reason.is_empty()) {
            Some(scheduled) => format!("waits for a node ({})", scheduled.why()),
            None => "waits for a node".to_owned(),
        };
    }
    for status in statuses(pod).filter(|status| !status.ready) {
        let ContainerState { running, terminated, waiting } = status.state.clone().unwrap_or_default();
        if let Some(waiting) = waiting {
            let reason = waiting.reason.unwrap_or_else(|| "waiting".to_owned());
            return match latest(
                events,
                &["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"],
                None,
            ) {
                Some((reason, message)) => format!("{reason}: {}", one_line(message)),
                None => reason,
            };
        }
        // An init container that did its work.
        if let Some(ended) = terminated.filter(|ended| ended.exit_code != 0) {
            return ending(&ended);
        }
        if running.is_some()
            && let Some(spec) = container(pod, &status.name)
        {
            return probing(spec, status, events, clock);
        }
    }
    if statuses(pod).next().is_none() {
        "waits for the node to start it".to_owned()
    } else {
        "not Ready yet".to_owned()
    }
}

/// A running container that is not Ready: which probe it has not passed, what that last saw, and for how long.
fn probing(spec: &Container, status: &ContainerStatus, events: &[&Event], clock: &Clock) -> String {
    let since = running_since(status);
    let starting = status.started != Some(true) && spec.startup_probe.is_some();
    let (word, probe) = if starting {
        ("startup", spec.startup_probe.as_ref())
    } else {
        ("readiness", spec.readiness_probe.as_ref())
    };
    let Some(probe) = probe else { return "running, not Ready yet".to_owned() };
    let path = path(probe);
    let prefix = format!("{word} probe failed: ");
    let saw = latest(events, &["Unhealthy"], since)
        .filter(|(_, message)| message.to_ascii_lowercase().starts_with(&prefix))
        .map_or_else(
            || " not passed yet".to_owned(),
            |(_, message)| format!(" {}", probe_saw(&message[prefix.len()..])),
        );
    let mut line = format!("{word} probe{path}{saw}");
    if let Some(since) = since.filter(|_| starting) {
        let lasts = clock.since(since);
        let budget = budget(probe);
        line += &format!(", {} s of {}", lasts.as_secs(), budget.as_secs());
        // The line is about time, so it is said again as time passes.
        let steps = u32::try_from(lasts.as_secs() / REFRESH.as_secs()).unwrap_or(u32::MAX);
        clock.passed(since, REFRESH.saturating_mul(steps.saturating_add(1)));
    }
    line
}

/// A failed probe's outcome in few words, from the kubelet's sentence.
fn probe_saw(message: &str) -> String {
    if let Some(code) = message.strip_prefix("HTTP probe failed with statuscode: ") {
        return code.trim().to_owned();
    }
    if message.contains("deadline exceeded") || message.contains("timed out") || message.contains("Timeout") {
        return "timed out".to_owned();
    }
    one_line(message.rsplit(": ").next().unwrap_or(message))
}

/// The latest event about the pod for one of those reasons, not older than `since`.
fn latest<'e>(
    events: &[&'e Event],
    reasons: &[&str],
    since: Option<Timestamp>,
) -> Option<(&'e str, &'e str)> {
    let event = events
        .iter()
        .filter(|event| event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason)))
        // Events are stamped by the second.
        .filter(|event| {
            since.is_none_or(|since| event_time(event).is_none_or(|at| at.as_second() >= since.as_second()))
        })
        .max_by_key(|event| event_time(event))?;
    Some((event.reason.as_deref()?, event.message.as_deref().unwrap_or_default()))
}

/// The volume claims that a pod mounts.
pub fn claims(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

fn path(probe: &Probe) -> String {
    match &probe.http_get {
        Some(HTTPGetAction { path, .. }) => format!(" {}", path.as_deref().unwrap_or("/")),
        None => String::new(),
    }
}

/// How a run ended, such as `exited with 1` or `was killed (OOMKilled, exit 137)`.
#[must_use]
pub fn ending(ended: &ContainerStateTerminated) -> String {
    match ended.reason.as_deref() {
        Some(reason @ ("OOMKilled" | "ContainerCannotRun" | "StartError" | "DeadlineExceeded")) => {
            format!("ended ({reason}, exit {})", ended.exit_code)
        }
        _ => format!("exited with {}", ended.exit_code),
    }
}
