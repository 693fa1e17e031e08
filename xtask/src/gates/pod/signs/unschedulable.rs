//! A pod that has no node: what the scheduler says of the nodes, whether one is on its way, and what helps.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};

use super::super::super::clock::Clock;
use super::super::{CLAIM, claims, latest};
use super::{Grace, Sign};
use crate::commands::Advice;
use crate::kubernetes::{Condition, one_line};

/// How long a pod may have no node before that counts as permanent: 15 s, and one for the fraction of a second that the
/// condition's timestamp leaves out.
const GRACE: Duration = Duration::from_secs(16);
/// How long a volume may take to be made.
const PROVISIONING_GRACE: Duration = Duration::from_secs(90);
/// Stands in advice for the node that is meant, which a pod does not name.
pub const ANY_NODE: &str = "NODE";
/// By which the autoscalers of nodes (cluster-autoscaler, Karpenter) say that they make one for a pod, or won't.
const SCALERS: [&str; 3] = ["TriggeredScaleUp", "Nominated", NO_SCALE_UP];
const NO_SCALE_UP: &str = "NotTriggerScaleUp";
const ROOM: &str = "free room on the node, ask for less in resources.requests, or give the cluster more";

/// No room, a cordon, a rule of its own, or a volume that is not there.
pub(super) fn sign(pod: &Pod, condition: &Condition<'_>, events: &[&Event], clock: &Clock) -> Sign {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let mut text = format!("unschedulable: {}", one_line(condition.message));
    let mut grace = GRACE;
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
    } else {
        cure(&message)
    };
    let mut grace = Grace::Since(condition.since.unwrap_or_else(|| clock.now()), grace);
    if let Some((reason, message)) = latest(events, &SCALERS, None) {
        text += &format!("; {reason}: {}", one_line(message));
        if reason != NO_SCALE_UP {
            // A machine takes minutes to start; the gate's deadline bounds them.
            grace = Grace::Forever;
        }
    }
    Sign { key: format!("{uid}/unschedulable"), text, advice: Some(advice), grace, alone: true, probe: None }
}

/// What helps. The scheduler names the reason of every node: what keeps the pod off the nodes that it is meant for is
/// asked for before what keeps it off the others.
fn cure(message: &str) -> Advice {
    let has = |words: &str| message.contains(words);
    if has("were unschedulable") {
        return Advice::Kubectl(format!("uncordon {ANY_NODE}"), "lets pods onto the cordoned node again");
    }
    if has("insufficient ") || has("too many pods") {
        return ROOM.into();
    }
    if has("anti-affinity rules") {
        return "each node that it may go to has a pod that `podAntiAffinity` keeps it apart from: add nodes, \
                ask for fewer replicas, or make the rule `preferredDuringSchedulingIgnoredDuringExecution`"
            .into();
    }
    if has("pod affinity rules") {
        return "no node has the pods that `podAffinity` wants it beside: start them, or make the rule \
                `preferredDuringSchedulingIgnoredDuringExecution`"
            .into();
    }
    if has("topology spread constraints") {
        return "`topologySpreadConstraints` leave it no node: raise `maxSkew`, or set \
                `whenUnsatisfiable: ScheduleAnyway`"
            .into();
    }
    if has("free ports") {
        return "each node that it may go to has its `hostPort` taken: add nodes, or do without one".into();
    }
    if has("volume node affinity conflict") {
        return "its volume is where none of its nodes are: choose nodes there, or make the volume anew"
            .into();
    }
    if has("node affinity/selector") {
        let shows = "shows what nodes there are: none has what `nodeSelector` or `nodeAffinity` asks for";
        return Advice::Kubectl("get nodes --show-labels".to_owned(), shows);
    }
    if has("untolerated taint") {
        let shows = "shows the nodes' taints: tolerate one in the pod's template, or take it off a node";
        return Advice::Kubectl("describe nodes".to_owned(), shows);
    }
    ROOM.into()
}
