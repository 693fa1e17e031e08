//! What a pod is at, in few words, and which of its signs are bad.

use std::collections::BTreeMap;
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
/// How long a volume may take to be made.
const PROVISIONING_GRACE: Duration = Duration::from_secs(90);
/// The kind of a volume claim.
const CLAIM: &str = "PersistentVolumeClaim";
/// How long a refusal that someone may still mend must stand: an image or a ConfigMap that is about to be made.
pub const REFUSAL_GRACE: Duration = Duration::from_secs(4);
/// Stands in advice for the node that is meant, which a pod does not name.
pub const ANY_NODE: &str = "NODE";
/// How often a container must have ended in a row before that is a crash loop.
const CRASHES: i32 = 3;
/// Bounds of a crash loop's grace; between them it is the time that the pod's own probes give a start.
const CRASH_GRACE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));
/// A container that has run so long after a crash is taken to stay.
const STEADY: Duration = Duration::from_secs(10);
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
    /// The probe whose answer it is: container, and `startup`, `readiness` or `liveness`.
    pub probe: Option<(String, &'static str)>,
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

fn pod_condition<'p>(pod: &'p Pod, name: &str) -> Option<Condition<'p>> {
    condition::find(pod.status.as_ref()?.conditions.as_ref(), name)
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

/// The events about a pod and about the volume claims that it waits for.
#[must_use]
pub fn events_of<'e>(events: &'e BTreeMap<String, Event>, pod: &Pod) -> Vec<&'e Event> {
    let uid = &pod.metadata.uid;
    let is_about = |event: &&Event| {
        let about = &event.involved_object;
        uid.is_some() && about.uid == *uid
            || about.kind.as_deref() == Some(CLAIM)
                && claims(pod).any(|claim| about.name.as_deref() == Some(claim))
    };
    events.values().filter(is_about).collect()
}

/// The volume claims that a pod mounts.
fn claims(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

/// All bad signs of a pod, the worst of each container. `events` are those about this pod.
pub fn signs(pod: &Pod, events: &[&Event], clock: &Clock) -> Vec<Sign> {
    let mut signs = Vec::new();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let scheduled =
        pod_condition(pod, "PodScheduled").filter(|c| c.status == "False" && c.reason == "Unschedulable");
    if let Some(condition) = scheduled {
        signs.push(unschedulable(pod, &condition, events, clock));
    }
    for status in statuses(pod) {
        let sign = probe_sign(pod, status, events)
            .or_else(|| waiting_sign(pod, status, events))
            .or_else(|| crash_sign(pod, status, events));
        signs.extend(sign.map(|sign| Sign { key: format!("{uid}/{}/{}", status.name, sign.key), ..sign }));
    }
    signs
}

/// A pod without a node: no room, a cordon, or a volume that is not there.
fn unschedulable(pod: &Pod, condition: &Condition<'_>, events: &[&Event], clock: &Clock) -> Sign {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let mut text = format!("unschedulable: {}", one_line(condition.message));
    let mut grace = UNSCHEDULABLE_GRACE;
    let message = condition.message.to_ascii_lowercase();
    let advice = if message.contains("persistentvolumeclaim") || message.contains("storageclass") {
        let about: Vec<_> = events
            .iter()
            .copied()
            .filter(|event| event.involved_object.kind.as_deref() == Some(CLAIM))
            .collect();
        let failed = latest(&about, &["ProvisioningFailed", "FailedBinding"], None);
        if let Some((reason, message)) = failed {
            let claim = about.iter().find(|event| event.message.as_deref() == Some(message));
            let claim = claim.and_then(|event| event.involved_object.name.as_deref()).unwrap_or_default();
            text += &format!("; persistentvolumeclaim/{claim}: {reason}: {}", one_line(message));
        } else if message.contains("unbound") {
            // Somebody may be making the volume.
            grace = PROVISIONING_GRACE;
        }
        let claims: Vec<_> = claims(pod).collect();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let arguments = format!("-n {namespace} describe persistentvolumeclaim {}", claims.join(" "));
        Advice::Kubectl(arguments, "says what the volume claim waits for")
    } else if message.contains("were unschedulable") {
        Advice::Kubectl(format!("uncordon {ANY_NODE}"), "lets pods onto the cordoned node again")
    } else {
        "free room on the node, ask for less in resources.requests, or give the cluster more".into()
    };
    Sign {
        key: format!("{uid}/unschedulable"),
        text,
        advice: Some(advice),
        grace: Grace::Since(condition.since.unwrap_or_else(|| clock.now()), grace),
        alone: true,
        probe: None,
    }
}

fn waiting_sign(pod: &Pod, status: &ContainerStatus, events: &[&Event]) -> Option<Sign> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let message = waiting.message.as_deref().map(one_line).unwrap_or_default();
    let image = container(pod, &status.name).and_then(|c| c.image.as_deref()).unwrap_or(&status.image);
    let text =
        if message.is_empty() { format!("{reason} ({image})") } else { format!("{reason}: {message}") };
    let sign = |key: &str, grace, advice: Option<Advice>| {
        Some(Sign { key: key.to_owned(), text: text.clone(), advice, grace, alone: false, probe: None })
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
        probe: None,
    })
}

/// That a container which nobody asks whether it is ready has only just come back from a crash: it is Ready as long as it
/// runs, which may be a moment.
#[must_use]
pub fn unsteady(pod: &Pod, events: &[&Event], clock: &Clock) -> Option<String> {
    statuses(pod).find_map(|status| {
        let is_asked = container(pod, &status.name).is_none_or(|spec| spec.readiness_probe.is_some());
        let since = running_since(status)?;
        let last = status.last_state.as_ref()?.terminated.as_ref()?;
        let is_steady = is_asked
            || status.restart_count == 0
            || last.exit_code == 0
            || was_stopped_with_its_node(last, events)
            || clock.passed(since, STEADY);
        let seconds = clock.since(since).as_secs();
        (!is_steady).then(|| {
            let (name, ending, times) = (&status.name, ending(last), counted(status.restart_count));
            format!("container {name} has run for {seconds} s since it {ending}, {times}")
        })
    })
}

/// A probe's own answer, where that is what keeps a container from being Ready: the kubelet has ended it for that, or it is
/// up and asked in vain. A refusal of the request itself (400 to 499) will not mend: nothing is at that path.
fn probe_sign(pod: &Pod, status: &ContainerStatus, events: &[&Event]) -> Option<Sign> {
    if status.ready {
        return None;
    }
    let spec = container(pod, &status.name)?;
    let is_up = running_since(status).is_some();
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref()).or(last);
    let killed_for = ended.and_then(|ended| killed_for(&status.name, ended, events));
    let (word, probe) = match killed_for {
        Some("startup") => ("startup", spec.startup_probe.as_ref()),
        Some(_) => ("liveness", spec.liveness_probe.as_ref()),
        None if is_up && status.started == Some(true) => ("readiness", spec.readiness_probe.as_ref()),
        None => return None,
    };
    let probe = probe?;
    let (saw, times) = last_answer(&status.name, word, events)?;
    let is_refused = saw.parse::<u16>().is_ok_and(|code| (400..500).contains(&code) && code != 429);
    // One that was Ready before, or is inside its own patience, is no sign yet.
    if killed_for.is_none() && (!is_refused || times < probe.failure_threshold.unwrap_or(3)) {
        return None;
    }
    let path = path(probe);
    let answered =
        if saw.parse::<u16>().is_ok() { format!("answered {saw}") } else { format!("failed ({saw})") };
    let mut text = format!("{word} probe{path} {answered}, {}", counted(times));
    if killed_for.is_some() {
        text +=
            &format!("; container {} was restarted for it, {}", status.name, counted(status.restart_count));
    }
    let advice = if is_refused {
        format!("nothing answers 200 at{path}: fix the {word} probe's path or port, or the app").into()
    } else {
        Advice::Kubectl(logs_previous(pod, &status.name), "shows what the app did meanwhile")
    };
    let (least, most) = CRASH_GRACE;
    let grace = match (is_refused, killed_for) {
        (true, Some(_)) => Grace::Lasting(REFUSAL_GRACE),
        (true, None) => Grace::Lasting(most),
        (false, _) if status.restart_count >= CRASHES && !is_up => {
            Grace::Lasting(startup_budget(pod).clamp(least, most))
        }
        (false, _) => Grace::Forever,
    };
    let key = format!("{word} probe");
    Some(Sign {
        key,
        text,
        advice: Some(advice),
        grace,
        alone: false,
        probe: Some((status.name.clone(), word)),
    })
}

fn counted(times: i32) -> String {
    if times <= 1 { "once".to_owned() } else { format!("{times} times") }
}

fn path(probe: &Probe) -> String {
    match &probe.http_get {
        Some(HTTPGetAction { path, .. }) => format!(" {}", path.as_deref().unwrap_or("/")),
        None => String::new(),
    }
}

/// The probe for which the kubelet ended a run, by its event.
fn killed_for(container: &str, ended: &ContainerStateTerminated, events: &[&Event]) -> Option<&'static str> {
    let since = ended.started_at.as_ref().map(|Time(at)| *at);
    let (_, message) = latest(events, &["Killing"], since)?;
    ["startup", "liveness"]
        .into_iter()
        .find(|word| message.starts_with(&format!("Container {container} failed {word} probe")))
}

/// What a container's probe saw when it last failed, and how often it saw that.
fn last_answer(container: &str, word: &str, events: &[&Event]) -> Option<(String, i32)> {
    let prefix = format!("{word} probe failed: ");
    let is_of_container = |event: &Event| {
        let field = event.involved_object.field_path.as_deref();
        field.is_none_or(|field| field == format!("spec.containers{{{container}}}"))
    };
    let failed = events.iter().filter(|event| event.reason.as_deref() == Some("Unhealthy"));
    let event = failed
        .filter(|event| is_of_container(event))
        .filter(|event| {
            event.message.as_deref().is_some_and(|text| text.to_ascii_lowercase().starts_with(&prefix))
        })
        .max_by_key(|event| event_time(event))?;
    let times = event.series.as_ref().and_then(|series| series.count).or(event.count).unwrap_or(1);
    Some((probe_saw(&event.message.as_deref()?[prefix.len()..]), times))
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
