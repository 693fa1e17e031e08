//! The events about a workload, each kept under what it is about. A namespace holds thousands of them, most about pods
//! that are long gone; a judgement looks up those of the pods that are there.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::core::DynamicObject;
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};

use super::pod::{CLAIM, claims};
use super::watch::{Feed, Objects};
use crate::kubernetes::Api;

/// What happens to every pod that starts or goes, and what the pod or its controller says of itself, is told by most
/// events, and no gate reads those.
const UNREAD: &str = "reason!=Scheduled,reason!=Pulling,reason!=Pulled,reason!=Created,reason!=Started,\
                      reason!=FailedScheduling,reason!=BackOff,reason!=SuccessfulDelete,\
                      reason!=ScalingReplicaSet";
/// Of a long name of a workload, so much is surely in the names of its pods.
const NAME_IN_PODS: usize = 40;

/// Watches the events of one namespace about a workload, what it owns, and volume claims. Events can't be selected by
/// labels, or by the beginning of a name.
pub(super) fn feed<S: 'static>(
    client: &Client,
    namespace: &str,
    workload: &str,
    slot: fn(&mut S) -> &mut Objects<Event>,
) -> Feed<S> {
    let name: String = workload.chars().take(NAME_IN_PODS).collect();
    let selection = watcher::Config::default().fields(UNREAD);
    let api = Api::namespaced(client.clone(), namespace);
    Feed::watch_by(api, selection, move |event| key(&name, event), slot).optional()
}

/// Under which key an event is kept: what it is about, then its own name. None for one about what bears another name
/// than the workload.
pub(super) fn key(workload: &str, event: &DynamicObject) -> Option<String> {
    let about = |field: &str| event.data.get("involvedObject")?.get(field)?.as_str();
    let name = about("name")?;
    if about("kind") == Some(CLAIM) {
        return Some(of_claim(name) + &event.name_any());
    }
    if !name.starts_with(workload) {
        return None;
    }
    Some(of_uid(about("uid")?) + &event.name_any())
}

/// With what the keys of the events about an object begin. No uid and no name has a slash.
fn of_uid(uid: &str) -> String {
    format!("{uid}/")
}

/// The same of a volume claim: a pod knows it by its name.
fn of_claim(name: &str) -> String {
    format!("{CLAIM}/{name}/")
}

/// The events about the object of this uid.
pub(super) fn about<'e>(events: &'e Objects<Event>, uid: &str) -> impl Iterator<Item = &'e Event> + use<'e> {
    beginning_with(events, of_uid(uid))
}

/// The events about a pod and about the volume claims that it waits for.
pub(super) fn about_pod<'e>(events: &'e Objects<Event>, pod: &Pod) -> Vec<&'e Event> {
    let itself = pod.metadata.uid.iter().flat_map(|uid| about(events, uid));
    itself.chain(claims(pod).flat_map(|claim| beginning_with(events, of_claim(claim)))).collect()
}

fn beginning_with(events: &Objects<Event>, prefix: String) -> impl Iterator<Item = &Event> {
    let from_there = events.range(prefix.clone()..);
    from_there.take_while(move |(key, _)| key.starts_with(&prefix)).map(|(_, event)| event)
}
