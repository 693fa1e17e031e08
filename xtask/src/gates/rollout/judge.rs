//! The rules by which a rollout is complete, under way, or beyond hope.

use k8s_openapi::api::core::v1::Pod;

use super::super::Verdict;
use super::super::bad_sign::{self, Bad, Fleet};
use super::super::clock::Clock;
use super::super::events;
use super::super::pod;
use super::view::{self, Runs, View};
use super::{PodRef, RolledOut, Rollout, Snapshot};
use crate::commands::Advice;
use crate::kubernetes::{Condition, is_ready};

/// Judges what was seen.
pub fn judge(s: &Snapshot, clock: &Clock) -> Verdict<RolledOut> {
    let name = &s.target.deployment;
    let Some(deployment) = s.deployments.get(name) else {
        if s.target.was_there {
            return Verdict::Doomed(format!("deployment/{name} was deleted"), "make it again".into());
        }
        return Verdict::Closed(format!(
            "deployment/{name} does not exist in namespace {}",
            s.target.namespace
        ));
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        return Verdict::Suspect(format!("deployment/{name} is being deleted"));
    }
    let view = View::of(s, deployment);
    let wanted = view.wanted();
    if wanted == 0 {
        let scale = format!(
            "-n {} scale deployment/{name} --replicas={}",
            s.target.namespace,
            s.target.min_replicas.unwrap_or(1)
        );
        let why = match s.target.min_replicas {
            Some(_) => "is scaled to 0, and an autoscaler never scales up from zero",
            None => "is scaled to 0: no pod will start",
        };
        return Verdict::Doomed(format!("deployment/{name} {why}"), Advice::Kubectl(scale, ""));
    }
    if !view.is_caught_up() {
        let generation = deployment.metadata.generation.unwrap_or(0);
        let line = format!("the Deployment controller has not observed generation {generation} yet");
        return Verdict::Closed(line);
    }
    let superseded = superseded(s, &view);
    let Some(waits_for) = incomplete(s, &view, wanted, clock) else {
        return open(s, &view, wanted, &superseded);
    };
    bad_sign::closed(worst(s, &view, &waits_for, clock), &waits_for, &superseded)
}

/// The beginning of a line, where another rollout has taken the place of the one that we began to wait for.
fn superseded(s: &Snapshot, view: &View<'_>) -> String {
    match (s.first_revision, view.newest.map(view::revision)) {
        (Some(first), Some(now)) if now != first => {
            format!("another rollout came in between (revision {now} after {first}); ")
        }
        _ => String::new(),
    }
}

fn open(s: &Snapshot, view: &View<'_>, wanted: i32, superseded: &str) -> Verdict<RolledOut> {
    let revision = view.newest.map_or(0, view::revision);
    let pods = view
        .newest_pods
        .iter()
        .map(|pod| PodRef {
            name: pod::name(pod).to_owned(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            ip: pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default(),
        })
        .collect();
    let image = match (s.target.image.as_str(), &s.target.digests) {
        ("", _) => view.images().collect::<Vec<_>>().join(", "),
        (image, digests) if digests.is_empty() => image.to_owned(),
        (image, digests) => format!("{image} ({digests})"),
    };
    let line = format!("{superseded}{wanted} of {wanted} pods run {image}, revision {revision}");
    Verdict::Open(RolledOut { pods, replicas: wanted, revision }, line)
}

/// What a rollout that the controller has taken up still lacks.
fn incomplete(s: &Snapshot, view: &View<'_>, wanted: i32, clock: &Clock) -> Option<String> {
    if let Some(least) = s.target.min_replicas.filter(|least| wanted < *least) {
        return Some(format!(
            "{wanted} replicas asked for; the autoscaler has yet to raise them to its minimum of {least}"
        ));
    }
    let others: String = others(view).iter().map(|others| format!("; {others}")).collect();
    let Some(newest) = view.newest else {
        return Some(format!("no ReplicaSet for the newest template yet{others}"));
    };
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let ready = count(view.newest_pods.iter().filter(|pod| is_ready(pod)).count());
    if ready < wanted {
        let slowest = view.newest_pods.iter().find(|pod| !is_ready(pod));
        let what = slowest.map(|pod| {
            format!("; {}: {}", pod::short(pod), pod::state(pod, &events::about_pod(&s.events, pod), clock))
        });
        let count = count(view.newest_pods.len());
        let made = if count < wanted && what.is_none() { format!(", {count} made") } else { String::new() };
        let what = what.unwrap_or_default();
        return Some(format!("{ready} of {wanted} updated pods Ready{made}{what}{others}"));
    }
    let not_built = view.newest_pods.iter().find_map(|pod| match view::runs(&s.target, pod) {
        Runs::Built => None,
        Runs::Unknown => Some(format!("{} has not reported its image yet", pod::short(pod))),
        Runs::Other(what) => Some(format!("{} runs another image ({what})", pod::short(pod))),
    });
    if not_built.is_some() {
        return not_built;
    }
    let unsteady = view.newest_pods.iter().find_map(|pod| {
        let why = pod::unsteady(pod, &events::about_pod(&s.events, pod), clock)?;
        Some(format!("{}: {why}", pod::short(pod)))
    });
    if let Some(unsteady) = unsteady {
        return Some(format!("all {wanted} updated pods Ready; {unsteady}"));
    }
    // What is Ready becomes available after `minReadySeconds`.
    let available = newest.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    (available < wanted)
        .then(|| format!("all {wanted} updated pods Ready, {available} of them available yet{others}"))
}

/// The pods that will not stay.
pub(in crate::gates) fn others(view: &View<'_>) -> Vec<String> {
    let mut others = Vec::new();
    if !view.old_pods.is_empty() {
        others.push(format!("{} old left ({})", view.old_pods.len(), names(&view.old_pods)));
    }
    if !view.terminating.is_empty() {
        others.push(format!("{} terminating ({})", view.terminating.len(), names(&view.terminating)));
    }
    others
}

fn names(pods: &[&Pod]) -> String {
    pods.iter().map(|pod| pod::short(pod)).collect::<Vec<_>>().join(", ")
}

fn worst(s: &Snapshot, view: &View<'_>, waits_for: &str, clock: &Clock) -> Option<Bad> {
    let from_pods = pods_sign(s, view, clock);
    if from_pods.as_ref().is_some_and(|bad| bad.permanent) {
        return from_pods;
    }
    let from_spec =
        || paused(s, view).or_else(|| refused(view, clock)).or_else(|| wrong_image(s, view, clock));
    let advice = from_pods.as_ref().map(|bad| bad.advice.clone());
    from_spec().or_else(|| no_progress(s, view, waits_for, advice, clock)).or(from_pods)
}

fn paused(s: &Snapshot, view: &View<'_>) -> Option<Bad> {
    let target = &s.target;
    view.is_held().then(|| Bad {
        why: format!("deployment/{} is paused, so the newest template is not rolled out", target.deployment),
        advice: resume(target),
        permanent: true,
    })
}

/// The command that ends a pause.
pub(in crate::gates) fn resume(target: &Rollout) -> Advice {
    Advice::Kubectl(format!("-n {} rollout resume deployment/{}", target.namespace, target.deployment), "")
}

/// The API refuses to make pods: quota, admission, security policy.
fn refused(view: &View<'_>, clock: &Clock) -> Option<Bad> {
    let failure = view.condition("ReplicaFailure").filter(Condition::is_true)?;
    let stands = clock.passed(failure.since.unwrap_or_else(|| clock.now()), pod::REFUSAL_GRACE);
    // What is being deleted gives its share of a quota back.
    let may_mend = !view.terminating.is_empty();
    Some(bad_sign::refused(failure.message, stands && !may_mend))
}

/// The template names another image, or the pods run one: somebody else's rollout, or a tag that was moved.
fn wrong_image(s: &Snapshot, view: &View<'_>, clock: &Clock) -> Option<Bad> {
    let target = &s.target;
    if target.image.is_empty() {
        return None;
    }
    let newest = view.newest?;
    if !view.images().any(|image| image == target.image) {
        let images = view.images().collect::<Vec<_>>().join(", ");
        let since = newest.metadata.creation_timestamp.as_ref().map_or_else(|| clock.now(), |time| time.0);
        return Some(Bad {
            why: format!(
                "deployment/{} was changed to image {images}, not the built {}",
                target.deployment, target.image
            ),
            advice: "someone else deploys to this namespace; run the command again when they are done".into(),
            permanent: clock.passed(since, pod::REFUSAL_GRACE),
        });
    }
    let mut pods = view.newest_pods.iter().filter(|pod| is_ready(pod));
    pods.find_map(|pod| match view::runs(target, pod) {
        Runs::Other(what) => Some(Bad {
            why: format!("{} runs another image under the name {} ({what})", pod::short(pod), target.image),
            advice: Advice::Xtask("redeploy", "builds the image into the cluster again"),
            permanent: true,
        }),
        Runs::Built | Runs::Unknown => None,
    })
}

/// The controller gave up waiting. Pods that are inside the time of their own startup probe overrule it.
fn no_progress(
    s: &Snapshot,
    view: &View<'_>,
    waits_for: &str,
    advice: Option<Advice>,
    clock: &Clock,
) -> Option<Bad> {
    let progressing =
        view.condition("Progressing").filter(|condition| condition.reason == "ProgressDeadlineExceeded")?;
    let seconds =
        view.deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds).unwrap_or(600);
    let starts = view.newest_pods.iter().any(|pod| pod::starts_in_time(pod, clock));
    Some(Bad {
        why: format!("no progress for {seconds} s ({}); {waits_for}", progressing.reason),
        advice: advice.unwrap_or_else(|| {
            Advice::Kubectl(format!("-n {} get pods", s.target.namespace), "shows the pods")
        }),
        permanent: progressing.status == "False" && !starts,
    })
}

/// The newest pods' own signs.
fn pods_sign(s: &Snapshot, view: &View<'_>, clock: &Clock) -> Option<Bad> {
    let fleet = Fleet {
        namespace: &s.target.namespace,
        pods: &view.newest_pods,
        events: &s.events,
        signs: &s.signs,
        probes: &s.target.probes,
        frees: frees_room(view, clock),
        each_counts: false,
        call: |pod| pod::short(pod).to_owned(),
    };
    fleet.worst(clock)
}

/// Whether room for a pod without a node may come from this rollout itself: from pods that end, or from old ones, which
/// go as soon as a new one that starts in time is Ready.
fn frees_room(view: &View<'_>, clock: &Clock) -> bool {
    let starts = || view.newest_pods.iter().any(|pod| pod::starts_in_time(pod, clock));
    !view.terminating.is_empty() || (!view.old_pods.is_empty() && starts())
}
