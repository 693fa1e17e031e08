//! A DaemonSet: a pod on each node that it is meant for; where one can't run, no other runs in its place.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;

use super::super::Verdict;
use super::super::bad_sign;
use super::super::bad_sign::Fleet;
use super::super::clock::Clock;
use super::super::pod;
use super::{Snapshot, Sorted, Until, names};
use crate::kubernetes::is_ready;

/// How the controller counts templates: on the DaemonSet, and on each pod.
const GENERATION: (&str, &str) = ("deprecated.daemonset.template.generation", "pod-template-generation");

/// Judges what was seen.
pub(in crate::gates) fn judge(s: &Snapshot<DaemonSet>, set: &DaemonSet, clock: &Clock) -> Verdict {
    let title = s.workload.title();
    let status = set.status.clone().unwrap_or_default();
    let generation = set.metadata.generation.unwrap_or(0);
    if status.observed_generation.unwrap_or(0) < generation {
        return Verdict::Closed(format!(
            "the DaemonSet controller has not observed generation {generation} yet"
        ));
    }
    let count = |number: i32| usize::try_from(number).unwrap_or_default();
    let wanted = count(status.desired_number_scheduled);
    if wanted == 0 {
        let why =
            format!("{title} is meant for no node: its nodeSelector, affinity and tolerations leave none");
        return Verdict::Doomed(why, s.kubectl("get nodes --show-labels", "shows what nodes there are"));
    }
    let updated_by_count = count(status.updated_number_scheduled.unwrap_or(0)) >= wanted;
    let pods = Sorted::of(s.owned(set), |pod| is_newest(set, pod).unwrap_or(updated_by_count));
    let ready = pods.newest.iter().filter(|pod| is_ready(pod)).count();
    let made = pods.newest.len();

    let by_hand = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref()?.type_.as_deref());
    let is_still = pods.terminating.is_empty() && pods.old.iter().all(|pod| is_ready(pod)) && ready == made;
    if by_hand == Some("OnDelete") && !pods.old.is_empty() && is_still && made + pods.old.len() >= wanted {
        let why = format!(
            "{} of {wanted} pods are of an older template ({}), and updateStrategy OnDelete replaces a \
             pod only when it is deleted",
            pods.old.len(),
            names(&pods.old, pod::name)
        );
        let all = pods.old.iter().map(|pod| pod::name(pod)).collect::<Vec<_>>().join(" ");
        return Verdict::Doomed(
            why,
            s.kubectl(&format!("delete pod {all}"), "lets the controller make them anew"),
        );
    }
    let available = count(status.number_available.unwrap_or(0));
    let waits_for = if ready < wanted || !pods.old.is_empty() {
        let unready = pods.newest.iter().find(|pod| !is_ready(pod));
        let state =
            unready.map(|pod| format!("; {}: {}", call(pod), s.state(pod, clock))).unwrap_or_default();
        let made = if made < wanted { format!(", {made} made") } else { String::new() };
        Some(format!(
            "{ready} of {wanted} nodes have an updated pod that is Ready{made}{state}{}",
            pods.rest()
        ))
    } else if let Some(unsteady) = s.unsteady(&pods.newest, clock) {
        Some(unsteady)
    } else if available < wanted {
        Some(format!("all {wanted} updated pods Ready, {available} of them available yet"))
    } else if !updated_by_count {
        Some(format!("all {wanted} updated pods Ready; the DaemonSet controller has yet to count them"))
    } else if s.until == Until::Settled && !pods.terminating.is_empty() {
        Some(format!("{} terminating ({})", pods.terminating.len(), names(&pods.terminating, pod::name)))
    } else {
        None
    };
    let Some(waits_for) = waits_for else {
        let elsewhere = count(status.number_misscheduled);
        let elsewhere = if elsewhere > 0 {
            format!("; {elsewhere} on nodes that it is not meant for")
        } else {
            String::new()
        };
        return Verdict::Open(
            (),
            format!("{ready} of {wanted} nodes have an updated pod that is Ready{elsewhere}"),
        );
    };
    let fleet = Fleet { call, ..s.fleet(&pods.newest, !pods.terminating.is_empty()) };
    bad_sign::closed(s.worst(set, &fleet, made + pods.old.len() < wanted, clock), &waits_for, "")
}

/// Whether a pod is of the present template; none where the controller does not say.
fn is_newest(set: &DaemonSet, pod: &Pod) -> Option<bool> {
    let (annotation, label) = GENERATION;
    let wanted = set.metadata.annotations.as_ref()?.get(annotation)?;
    let has = pod.metadata.labels.as_ref()?.get(label)?;
    Some(wanted == has)
}

/// A pod by its node: that is what tells it from the others.
fn call(pod: &Pod) -> String {
    match node(pod) {
        Some(node) => format!("{} on node {node}", pod::short(pod)),
        None => pod::short(pod).to_owned(),
    }
}

/// The node that a pod runs on, or was made for.
fn node(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref() {
        return Some(node);
    }
    let required = spec
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == "metadata.name");
    names.find_map(|field| field.values.as_ref()?.first().map(String::as_str))
}
