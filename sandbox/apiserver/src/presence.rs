//! What Kubernetes' Go types write although nobody set it, and leave out although it was set: their `omitempty` leaves
//! out empty lists and maps, but never a struct or a time.

use serde_json::{Map, Value, json};

use crate::kinds::Kind;

/// Maps by their field names; any other empty object is a struct, which stays.
const MAPS: [&str; 11] = [
    "labels",
    "annotations",
    "matchLabels",
    "data",
    "binaryData",
    "nodeSelector",
    "limits",
    "requests",
    "capacity",
    "allocatable",
    "overhead",
];
/// Lists that are written although they are empty, and the one that says something by being empty.
const LISTS: [&str; 4] = ["rules", "containers", "endpoints", "managedFields"];

/// Brings a decoded object into the form that the Go type has in JSON; `given` is what it was decoded from.
pub(crate) fn complete(kind: &Kind, given: &Value, object: &mut Value) {
    leave_out_empty(object);
    // The one struct that is a pointer in Go alone.
    if kind.group == "apps"
        && given["spec"]["selector"].is_null()
        && let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.remove("selector");
    }
    let times: &[&str] = match kind.kind {
        "Pod" => &["lastProbeTime", "lastTransitionTime"],
        "Deployment" => &["lastUpdateTime", "lastTransitionTime"],
        "Node" => &["lastHeartbeatTime", "lastTransitionTime"],
        "ReplicaSet" | "HorizontalPodAutoscaler" | "Namespace" | "APIService" => &["lastTransitionTime"],
        _ => &[],
    };
    for condition in list(object, "conditions") {
        times.iter().for_each(|time| add(condition, time, Value::Null));
    }
    match (kind.group, kind.kind) {
        ("", "Pod") => {
            for statuses in ["containerStatuses", "initContainerStatuses"] {
                for status in list(object, statuses) {
                    add(status, "state", json!({}));
                    add(status, "lastState", json!({}));
                }
            }
        }
        ("", "Event") => {
            for time in ["eventTime", "firstTimestamp", "lastTimestamp"] {
                add(object, time, Value::Null);
            }
            add(object, "reportingComponent", json!(""));
            add(object, "reportingInstance", json!(""));
            add(object, "source", json!({}));
        }
        _ => {}
    }
}

fn list<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = object.get_mut("status").and_then(|status| status.get_mut(field));
    list.and_then(Value::as_array_mut).into_iter().flatten()
}

fn add(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.entry(field).or_insert(value);
    }
}

fn leave_out_empty(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(leave_out_empty);
            fields.retain(|name, value| match value {
                Value::Object(map) => !map.is_empty() || !MAPS.contains(&name.as_str()),
                Value::Array(items) => !items.is_empty() || LISTS.contains(&name.as_str()),
                _ => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_empty),
        _ => {}
    }
}

/// An object of the kind that says nothing: the structs and fields that are in every one, so that nobody adds them.
pub(crate) fn blank(kind: &Kind) -> Value {
    let mut blank = json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}});
    match (kind.group, kind.kind) {
        ("", "Pod") => blank["spec"] = json!({"containers": null}),
        ("", "Node") => blank["status"] = node_status(),
        ("", "Event") => {
            for field in ["involvedObject", "source"] {
                blank[field] = json!({});
            }
            for field in ["eventTime", "firstTimestamp", "lastTimestamp"] {
                blank[field] = Value::Null;
            }
            for field in ["reportingComponent", "reportingInstance"] {
                blank[field] = json!("");
            }
        }
        ("apps", _) => {
            let template = json!({"metadata": {}, "spec": {"containers": null}});
            blank["spec"] = json!({"selector": null, "strategy": {}, "template": template});
        }
        ("autoscaling", _) => blank["spec"] = json!({"scaleTargetRef": {}}),
        ("networking.k8s.io", "NetworkPolicy") => blank["spec"] = json!({"podSelector": {}}),
        _ => {}
    }
    blank
}

/// The status of a new Node.
pub(crate) fn node_status() -> Value {
    let info: Map<String, Value> = [
        "machineID",
        "systemUUID",
        "bootID",
        "kernelVersion",
        "osImage",
        "containerRuntimeVersion",
        "kubeletVersion",
        "kubeProxyVersion",
        "operatingSystem",
        "architecture",
    ]
    .into_iter()
    .map(|field| (field.to_owned(), json!("")))
    .collect();
    json!({"daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}, "nodeInfo": info})
}
