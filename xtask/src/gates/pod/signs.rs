//! Which of a pod's signs are bad, and since when they count as permanent.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::clock::Clock;
use super::{container, ending, latest, name, path, probe_saw, running_since, startup_budget, statuses};
use crate::commands::Advice;
use crate::kubernetes::{event_time, one_line, pod_condition};

mod pull;
mod unschedulable;

pub use unschedulable::ANY_NODE;

/// How long a refusal that someone may still fix must stand: an image or a ConfigMap that is about to be made.
pub const REFUSAL_GRACE: Duration = Duration::from_secs(4);
/// How often a container must have ended in a row before that is a crash loop.
const CRASHES: i32 = 3;
/// Bounds of a crash loop's grace; between them it is the time that the pod's own probes give a start.
const CRASH_GRACE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));
/// Bounds of what a container without a readiness probe has to run, to be taken to stay: most crash in their first
/// seconds, of which a node under load tells seconds later. One that ended by itself has to outlive its earlier life.
const STEADY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

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

/// All bad signs of a pod, the worst of each container. `events` are those about this pod.
pub fn signs(pod: &Pod, events: &[&Event], clock: &Clock) -> Vec<Sign> {
    let mut signs = Vec::new();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let scheduled =
        pod_condition(pod, "PodScheduled").filter(|c| c.status == "False" && c.reason == "Unschedulable");
    if let Some(condition) = scheduled {
        signs.push(unschedulable::sign(pod, &condition, events, clock));
    }
    for status in statuses(pod) {
        let sign = probe_sign(pod, status, events)
            .or_else(|| waiting_sign(pod, status, events))
            .or_else(|| crash_sign(pod, status, events));
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
            let message = waiting.message.as_deref().unwrap_or_default();
            let event = latest(events, &["Failed"], None).map(|(_, message)| message);
            let mut all = std::iter::once(message).chain(event);
            let found = all.find_map(|said| Some((said, pull::cure(said)?)));
            let (said, cure) = found.map_or((message, None), |(said, cure)| (said, Some(cure)));
            let grace = cure.map_or(Grace::Forever, |_| Grace::Lasting(REFUSAL_GRACE));
            let sign = sign("image", grace, cure.map(Advice::from))?;
            Some(Sign { text: format!("{reason}: {}", pull::cause(image, said)), ..sign })
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

/// That a container which nobody asks whether it is ready has only just started, or come back from its end: it is
/// Ready as long as it runs, which may be a moment. It counts from when the node said so: who is late to tell of a
/// start is as late to tell of an end.
#[must_use]
pub fn unsteady(pod: &Pod, events: &[&Event], clock: &Clock) -> Option<String> {
    let told = pod_condition(pod, "Ready").and_then(|ready| ready.since);
    statuses(pod).find_map(|status| {
        if container(pod, &status.name).is_none_or(|spec| spec.readiness_probe.is_some()) {
            return None;
        }
        let since = running_since(status)?;
        let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        let end = last.filter(|last| status.restart_count > 0 && !was_stopped_with_its_node(last, events));
        if clock.passed(told.map_or(since, |told| told.max(since)), steady(end)) {
            return None;
        }
        let (name, seconds) = (&status.name, clock.since(since).as_secs());
        Some(match end {
            Some(end) => {
                let (ending, times) = (ending(end), counted(status.restart_count));
                let life = life(end).map(|life| format!(" after {} s", life.as_secs())).unwrap_or_default();
                format!("container {name} has run for {seconds} s since it {ending}{life}, {times}")
            }
            None => {
                format!("container {name} has run for {seconds} s, and no probe asks whether it is ready")
            }
        })
    })
}

/// How long a container has to run, after that end. A life that can't be outlived in time proves nothing of the next.
fn steady(end: Option<&ContainerStateTerminated>) -> Duration {
    let (least, most) = STEADY;
    let outlived = end.and_then(life).map_or(least, |life| life * 3 / 2);
    if outlived > most { least } else { outlived.max(least) }
}

/// How long a container lived.
fn life(end: &ContainerStateTerminated) -> Option<Duration> {
    let (Time(began), Time(ended)) = (end.started_at.as_ref()?, end.finished_at.as_ref()?);
    Duration::try_from(ended.duration_since(*began)).ok()
}

/// A probe's own answer, where that is what keeps a container from being Ready: the kubelet has ended it for that, or
/// it is up and asked in vain. A refusal of the request itself (400 to 499) will not pass: nothing is at that path.
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

/// Whether a run was killed from outside and by nobody who says so: a node that is stopped takes its containers with
/// it, and they start again with it. The kubelet leaves an event when it kills on a probe's word.
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
