//! A StatefulSet: its pods have an order, and each has a place and a volume that no other can take.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;

use super::super::Verdict;
use super::super::bad_sign;
use super::super::bad_sign::Fleet;
use super::super::clock::Clock;
use super::super::pod;
use super::{Snapshot, Sorted, Until, names};
use crate::kubernetes::is_ready;

/// The label by which the controller tells revisions apart.
const REVISION: &str = "controller-revision-hash";

/// Judges what was seen.
pub(in crate::gates) fn judge(s: &Snapshot<StatefulSet>, set: &StatefulSet, clock: &Clock) -> Verdict {
    let title = s.workload.title();
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
    if wanted == 0 {
        let why = format!("{title} is scaled to 0: no pod will start");
        return Verdict::Doomed(why, s.kubectl(&format!("scale {title} --replicas=1"), ""));
    }
    let generation = set.metadata.generation.unwrap_or(0);
    if status.observed_generation.unwrap_or(0) < generation {
        return Verdict::Closed(format!(
            "the StatefulSet controller has not observed generation {generation} yet"
        ));
    }
    let strategy = spec.update_strategy.unwrap_or_default();
    let by_hand = strategy.type_.as_deref() == Some("OnDelete");
    let partition = strategy.rolling_update.as_ref().and_then(|update| update.partition).unwrap_or(0);
    let start = spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0);
    // Below it, pods keep the revision that they have.
    let bound = start.saturating_add(partition);
    let newest = status.update_revision.clone().unwrap_or_default();
    let pods = Sorted::of(s.owned(set), |pod| revision(pod) == Some(&newest));
    let live: Vec<&Pod> = pods.newest.iter().chain(&pods.old).copied().collect();
    let ready = live.iter().filter(|pod| is_ready(pod)).count();
    let to_update: Vec<&Pod> = pods.old.iter().copied().filter(|pod| ordinal(pod) >= bound).collect();

    let is_still = ready == live.len() && live.len() == wanted && pods.terminating.is_empty();
    if by_hand && is_still && !pods.old.is_empty() {
        let old = names(&pods.old, pod::name);
        let why = format!(
            "{} of {wanted} pods are of an older revision ({old}), and updateStrategy OnDelete replaces a \
             pod only when it is deleted",
            pods.old.len()
        );
        let all = pods.old.iter().map(|pod| pod::name(pod)).collect::<Vec<_>>().join(" ");
        return Verdict::Doomed(
            why,
            s.kubectl(&format!("delete pod {all}"), "lets the controller make them anew"),
        );
    }
    let Some(waits_for) = incomplete(&pods, &to_update, ready, wanted, clock, s)
        .or_else(|| s.unsteady(&live, clock))
        .or_else(|| uncounted(&status, wanted, to_update.is_empty() && partition == 0 && !by_hand))
        .or_else(|| unsettled(s.until, &pods, live.len(), wanted))
    else {
        let kept = if pods.old.is_empty() {
            String::new()
        } else {
            format!("; partition {partition} keeps {} at an older one", names(&pods.old, pod::name))
        };
        let updated = pods.newest.len();
        return Verdict::Open(
            (),
            format!("{ready} of {wanted} pods Ready, {updated} of revision {newest}{kept}"),
        );
    };

    let in_order = spec.pod_management_policy.as_deref() != Some("Parallel");
    let frees = !pods.terminating.is_empty();
    // While one pod is not Ready, the controller touches no other: an old one that can't become so holds the update up.
    if in_order
        && !to_update.is_empty()
        && let Some(bad) = fleet(s, &pods.old, frees).worst(clock).filter(|bad| bad.permanent)
    {
        let stuck: Vec<&Pod> = pods.old.iter().copied().filter(|pod| !is_ready(pod)).collect();
        let why = format!("{}; it is of an older revision, and no pod is updated until it is Ready", bad.why);
        let names = stuck.iter().map(|pod| pod::name(pod)).collect::<Vec<_>>().join(" ");
        return Verdict::Doomed(
            why,
            s.kubectl(&format!("delete pod {names}"), "makes it anew, of the newest revision"),
        );
    }
    let bad = s.worst(set, &fleet(s, &live, frees), live.len() < wanted, clock);
    let bad = bad.map(|mut bad| {
        if bad.permanent && in_order && live.len() < wanted {
            bad.why += &format!("; the {} after it are not made until it is Ready", wanted - live.len());
        }
        bad
    });
    bad_sign::closed(bad, &waits_for, "")
}

/// Its pods are called by their whole names: `0` alone says little.
fn fleet<'s>(s: &'s Snapshot<StatefulSet>, pods: &'s [&'s Pod], frees: bool) -> Fleet<'s> {
    Fleet { call: |pod| pod::name(pod).to_owned(), ..s.fleet(pods, frees) }
}

fn incomplete(
    pods: &Sorted<'_>,
    to_update: &[&Pod],
    ready: usize,
    wanted: usize,
    clock: &Clock,
    s: &Snapshot<StatefulSet>,
) -> Option<String> {
    let live = pods.newest.len() + pods.old.len();
    if ready >= wanted && live >= wanted && to_update.is_empty() {
        return None;
    }
    let unready = pods.newest.iter().chain(&pods.old).find(|pod| !is_ready(pod));
    let state = unready.map(|pod| format!("; {}: {}", pod::name(pod), s.state(pod, clock)));
    let made = if live < wanted { format!(", {live} made") } else { String::new() };
    let updates = if to_update.is_empty() {
        String::new()
    } else {
        format!("; {} yet to be updated ({})", to_update.len(), names(to_update, pod::name))
    };
    let going = if pods.terminating.is_empty() {
        String::new()
    } else {
        format!("; {} terminating ({})", pods.terminating.len(), names(&pods.terminating, pod::name))
    };
    Some(format!("{ready} of {wanted} pods Ready{made}{}{updates}{going}", state.unwrap_or_default()))
}

/// What the controller has not counted yet: what is Ready becomes available after `minReadySeconds`.
fn uncounted(
    status: &k8s_openapi::api::apps::v1::StatefulSetStatus,
    wanted: usize,
    is_whole: bool,
) -> Option<String> {
    let available = usize::try_from(status.available_replicas.unwrap_or(0)).unwrap_or_default();
    if available < wanted {
        return Some(format!("all {wanted} pods Ready, {available} of them available yet"));
    }
    let (current, update) = (&status.current_revision, &status.update_revision);
    (is_whole && current != update).then(|| {
        let update = update.as_deref().unwrap_or_default();
        format!(
            "all {wanted} pods Ready; the StatefulSet controller has yet to take revision {update} as \
             the current one"
        )
    })
}

fn unsettled(until: Until, pods: &Sorted<'_>, live: usize, wanted: usize) -> Option<String> {
    if until == Until::Rollout {
        return None;
    }
    let terminating = pods.terminating.len();
    if terminating > 0 {
        return Some(format!("{terminating} terminating ({})", names(&pods.terminating, pod::name)));
    }
    (live > wanted).then(|| format!("{} more than the {wanted} that are asked for", live - wanted))
}

fn revision(pod: &Pod) -> Option<&String> {
    pod.metadata.labels.as_ref()?.get(REVISION)
}

fn ordinal(pod: &Pod) -> i32 {
    pod::short(pod).parse().unwrap_or(i32::MAX)
}
