//! Objects as a cluster would hold them.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::at;
use crate::gates::events::key;
use crate::gates::rollout::{Rollout, Snapshot};
use crate::gates::watch::Objects;
use crate::image::Digests;

pub(super) const IMAGE: &str = "web:new";
pub(super) const ID: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(super) const OTHER_ID: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

pub(super) fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Lays `changes` over an object, as a merge patch does.
pub(super) fn patch<K: serde::Serialize + DeserializeOwned>(object: &mut K, changes: &Value) {
    let mut value = serde_json::to_value(&*object).unwrap();
    merge(&mut value, changes);
    *object = serde_json::from_value(value).unwrap();
}

fn merge(value: &mut Value, changes: &Value) {
    match changes {
        Value::Object(changes) => {
            if !value.is_object() {
                *value = json!({});
            }
            let fields = value.as_object_mut().unwrap();
            for (key, change) in changes {
                if change.is_null() {
                    fields.remove(key);
                } else {
                    merge(fields.entry(key.clone()).or_insert(Value::Null), change);
                }
            }
        }
        other => *value = other.clone(),
    }
}

pub(super) fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{
        "name": "web", "image": image,
        "startupProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1,
        "failureThreshold": 90},
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 2},
    }]}})
}

/// Three replicas of `IMAGE`, all counted.
pub(super) fn deployment() -> Deployment {
    object(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 2},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template(IMAGE)},
        "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3,
        "availableReplicas": 3},
    }))
}

pub(super) fn replica_set(name: &str, revision: i64, image: &str) -> ReplicaSet {
    let mut template = template(image);
    template["metadata"]["labels"]["pod-template-hash"] = name.into();
    object(json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": name, "creationTimestamp": at(-60).to_string(),
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string()},
            "ownerReferences": [owner("Deployment", "web", "d")],
        },
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
        "status": {"replicas": 3, "readyReplicas": 3, "availableReplicas": 3},
    }))
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true})
}

/// A Ready pod of a ReplicaSet, started at noon.
pub(super) fn pod(name: &str, set: &str, image: &str, id: &str) -> Pod {
    object(json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {"app": "web"},
            "creationTimestamp": at(0).to_string(), "ownerReferences": [owner("ReplicaSet", set, set)],
        },
        "spec": template(image)["spec"],
        "status": {
            "phase": "Running", "podIP": "127.0.0.7",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "web", "image": image, "imageID": id, "ready": true, "started": true,
                "restartCount": 0,
                "state": {"running": {"startedAt": at(0).to_string()}},
            }],
        },
    }))
}

/// What a pod that is not Ready says of its container.
pub(super) fn not_ready(pod: &mut Pod, container: &Value) {
    let mut status = json!({"name": "web", "image": IMAGE, "imageID": "", "ready": false, "started": false,
        "restartCount": 0});
    merge(&mut status, container);
    patch(
        pod,
        &json!({"status": {
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
            "containerStatuses": [status],
        }}),
    );
}

pub(super) fn starting(pod: &mut Pod) {
    not_ready(pod, &json!({"imageID": ID, "state": {"running": {"startedAt": at(0).to_string()}}}));
}

pub(super) fn waiting(pod: &mut Pod, reason: &str, message: &str) {
    not_ready(pod, &json!({"state": {"waiting": {"reason": reason, "message": message}}}));
}

/// A pod in back-off after its container ended once more than it was restarted.
pub(super) fn crashed(pod: &mut Pod, restarts: i32, up: bool) {
    let state = if up {
        json!({"running": {"startedAt": at(0).to_string()}})
    } else {
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed \
                container"}})
    };
    let ended = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
    not_ready(pod, &json!({"imageID": ID, "restartCount": restarts, "state": state, "lastState": ended}));
}

pub(super) fn warning(about: &Pod, name: &str, reason: &str, message: &str, seconds: i64) -> Event {
    object(json!({
        "metadata": {"name": name, "namespace": "default"}, "type": "Warning", "reason": reason,
        "message": message,
        "involvedObject": {"kind": "Pod", "name": about.name_any(), "uid": about.metadata.uid},
        "lastTimestamp": at(seconds).to_string(),
    }))
}

/// Tells of an event about the workload, as its watch does.
pub(super) fn tell(events: &mut Objects<Event>, event: Event) {
    let untyped = object(serde_json::to_value(&event).unwrap());
    let key = key("web", &untyped).expect("an event about the workload");
    events.insert(key, event);
}

/// A rollout that is complete: revision 2, the old ReplicaSet empty.
pub(super) fn complete() -> Snapshot {
    let target = Rollout {
        namespace: "default".into(),
        deployment: "web".into(),
        digests: Digests::new([ID]),
        image: IMAGE.into(),
        ..Rollout::default()
    };
    let mut world = Snapshot::of(&target);
    world.deployments.insert("web".into(), deployment());
    for set in [replica_set("web-old", 1, "web:old"), replica_set("web-new", 2, IMAGE)] {
        world.replica_sets.insert(set.name_any(), set);
    }
    for name in ["web-new-a", "web-new-b", "web-new-c"] {
        world.pods.insert(name.into(), pod(name, "web-new", IMAGE, ID));
    }
    world
}

pub(super) fn lease(holder: &str, renewed: i64) -> Lease {
    object(json!({
        "metadata": {"name": "ingress-nginx-leader", "namespace": "ingress-nginx"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 30, "renewTime": format!("{:.6}",
        at(renewed))},
    }))
}
