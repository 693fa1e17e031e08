//! What a pod is at, in few words, and which of its signs are bad.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, Event, HTTPGetAction, Pod, Probe,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::clock::Clock;
use super::condition::{self, Condition, one_line};
use crate::commands::Advice;

/// How long a pod may have no node before that counts as permanent: 15 s, and one for the fraction of a second that the
/// condition's timestamp leaves out.
pub const UNSCHEDULABLE_GRACE: Duration = Duration::from_secs(16);
/// How long a refusal that someone may still mend must stand: an image or a ConfigMap that is about to be made.
pub const REFUSAL_GRACE: Duration = Duration::from_secs(4);
/// How often a container must have ended in a row before that is a crash loop.
const CRASHES: i32 = 3;
/// Bounds of a crash loop's grace; between them it is the time that the pod's own probes give a start.
const CRASH_GRACE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));
/// A line that says how long something lasts is renewed this often.
const REFRESH: Duration = Duration::from_secs(5);

/// A bad sign of one container or of the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Sign {
    /// The same as long as the sign lasts, though its words may change.
    pub key: String,
    /// What is wrong, without the pod's name.
    pub text: String,
    /// What to try; none where a look at the pod is all.
    pub advice: Option<Advice>,
    /// When it counts as permanent.
    pub grace: Grace,
    /// Whether one such pod dooms the rollout, not only all of them.
    pub alone: bool,
}

/// When a sign counts as permanent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Grace {
    /// At once.
    None,
    /// When it has lasted this long since it was first seen.
    Lasting(Duration),
    /// This long after a moment that the API tells.
    Since(Timestamp, Duration),
    /// Never by itself.
    Forever,
}

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

/// Whether the pod says that it is Ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    pod_condition(pod, "Ready").is_some_and(|ready| ready.is_true())
}

/// Whether the pod has run to its end, or was evicted; its controller replaces such a pod.
#[must_use]
pub fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn pod_condition<'p>(pod: &'p Pod, name: &str) -> Option<Condition<'p>> {
    condition::find(pod.status.as_ref()?.conditions.as_ref(), name)
}

/// The containers with their statuses, init containers first, as they run.
fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
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
    let path = match &probe.http_get {
        Some(HTTPGetAction { path, .. }) => format!(" {}", path.as_deref().unwrap_or("/")),
        None => String::new(),
    };
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

/// When an event last happened.
#[must_use]
pub fn event_time(event: &Event) -> Option<Timestamp> {
    let series =
        event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|MicroTime(at)| *at);
    series
        .max(event.last_timestamp.as_ref().map(|Time(at)| *at))
        .or(event.event_time.as_ref().map(|MicroTime(at)| *at))
        .or(event.metadata.creation_timestamp.as_ref().map(|Time(at)| *at))
}

/// All bad signs of a pod, the worst of each container. `events` are those about this pod.
pub fn signs(pod: &Pod, events: &[&Event], clock: &Clock) -> Vec<Sign> {
    let mut signs = Vec::new();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let scheduled =
        pod_condition(pod, "PodScheduled").filter(|c| c.status == "False" && c.reason == "Unschedulable");
    if let Some(condition) = scheduled {
        let since = condition.since.unwrap_or_else(|| clock.now());
        signs.push(Sign {
            key: format!("{uid}/unschedulable"),
            text: format!("unschedulable: {}", one_line(condition.message)),
            advice: Some(
                "free room on the node, ask for less in resources.requests, or give the cluster more".into(),
            ),
            grace: Grace::Since(since, UNSCHEDULABLE_GRACE),
            alone: true,
        });
    }
    for status in statuses(pod) {
        let sign = waiting_sign(pod, status, events).or_else(|| crash_sign(pod, status, events));
        signs.extend(sign.map(|sign| Sign { key: format!("{uid}/{}/{}", status.name, sign.key), ..sign }));
    }
    signs
}

fn waiting_sign(pod: &Pod, status: &ContainerStatus, events: &[&Event]) -> Option<Sign> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let message = waiting.message.as_deref().map(one_line).unwrap_or_default();
    let image = container(pod, &status.name).and_then(|c| c.image.as_deref()).unwrap_or(&status.image);
    let text =
        if message.is_empty() { format!("{reason} ({image})") } else { format!("{reason}: {message}") };
    let sign = |key: &str, grace, advice: Option<Advice>| {
        Some(Sign { key: key.to_owned(), text: text.clone(), advice, grace, alone: false })
    };
    match reason {
        "ErrImageNeverPull" => sign(
            reason,
            Grace::None,
            Some(Advice::Xtask(
                "redeploy",
                "builds the image into the cluster: it is not there, and must not be pulled",
            )),
        ),
        "InvalidImageName" => {
            sign(reason, Grace::None, Some("fix the image's name in the Deployment".into()))
        }
        "ErrImagePull" | "ImagePullBackOff" => {
            // The back-off's message may not repeat what the registry said; the event of the pull does.
            let said = latest(events, &["Failed"], None).map(|(_, message)| message).unwrap_or_default();
            let gone = is_not_found(&message) || is_not_found(said);
            let grace = if gone { Grace::Lasting(REFUSAL_GRACE) } else { Grace::Forever };
            let push = || "the registry has no such image: fix the name or tag, or push it".into();
            let mut sign = sign("image", grace, gone.then(push));
            if let Some(sign) = sign.as_mut().filter(|_| gone && !is_not_found(&message)) {
                sign.text = format!("{reason}: {}", one_line(said));
            }
            sign
        }
        "CreateContainerConfigError" => {
            // A ConfigMap that is there but not yet in the kubelet's cache.
            let race = message.contains("cache");
            let grace = if race { Grace::Forever } else { Grace::Lasting(REFUSAL_GRACE) };
            sign(
                reason,
                grace,
                Some("create what the message says is missing, or fix the reference to it".into()),
            )
        }
        "CreateContainerError" | "RunContainerError" => sign(
            reason,
            Grace::Lasting(CRASH_GRACE.0),
            Some("fix what the message names in the image or the Deployment".into()),
        ),
        "CrashLoopBackOff" => crash_sign(pod, status, events),
        _ => None,
    }
}

/// What registries and container engines say when the image does not exist.
fn is_not_found(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["not found", "manifest unknown", "does not exist", "no such image"]
        .iter()
        .any(|words| message.contains(words))
}

fn crash_sign(pod: &Pod, status: &ContainerStatus, events: &[&Event]) -> Option<Sign> {
    if status.ready {
        return None;
    }
    let state = status.state.as_ref()?;
    let ended = state.terminated.as_ref();
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let is_up = state.running.is_some();
    // An init container that did its work, or a container that will be started again at once.
    if ended.is_some_and(|now| now.exit_code == 0) {
        return None;
    }
    let latest = ended.or(last)?;
    if is_up && was_stopped_with_its_node(latest, events) {
        return None;
    }
    let ending = ending(latest);
    // The end that a container waits after is not counted as a restart yet.
    let crashes = status.restart_count + i32::from(!is_up);
    if crashes == 0 {
        return None;
    }
    let times = if crashes == 1 { "once".to_owned() } else { format!("{crashes} times") };
    let (least, most) = CRASH_GRACE;
    // A run that is under way may be the one that succeeds.
    let loops = crashes >= CRASHES && !is_up;
    let grace = if loops { Grace::Lasting(startup_budget(pod).clamp(least, most)) } else { Grace::Forever };
    let again = if is_up { "restarted after it " } else { "" };
    Some(Sign {
        key: "crash".to_owned(),
        text: format!("container {} {again}{ending}, {times}", status.name),
        advice: Some(Advice::Kubectl(logs_previous(pod, &status.name), "shows why it ended")),
        grace,
        alone: false,
    })
}

/// Whether a run was killed from outside and by nobody who says so: a node that is stopped takes its containers with it,
/// and they start again with it. The kubelet leaves an event when it kills on a probe's word.
fn was_stopped_with_its_node(ended: &ContainerStateTerminated, events: &[&Event]) -> bool {
    let killed = match ended.reason.as_deref() {
        None | Some("Error") => matches!(ended.exit_code, 137 | 143),
        // What containerd finds after a restart, and did not see end.
        Some("Unknown") => true,
        Some(_) => false,
    };
    let since = ended.started_at.as_ref().map(|Time(at)| *at);
    killed && latest(events, &["Killing"], since).is_none()
}

fn logs_previous(pod: &Pod, container: &str) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    format!("-n {namespace} logs {} -c {container} --previous", name(pod))
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
