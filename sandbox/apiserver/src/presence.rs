//! What Kubernetes' Go types write although nobody set it, and leave out although it was set: their `omitempty` leaves
//! out empty lists and maps, but never a struct or a time.

use serde_json::{Map, Value, json};

use crate::kind::Kind;

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
    for condition in list(object, "conditions") {
        let times = kind.does.condition_times.iter();
        times.for_each(|time| add(condition, time, Value::Null));
    }
    (kind.does.complete)(given, object);
}

pub(crate) fn complete_pod(_: &Value, pod: &mut Value) {
    for statuses in ["containerStatuses", "initContainerStatuses"] {
        for status in list(pod, statuses) {
            add(status, "state", json!({}));
            add(status, "lastState", json!({}));
        }
    }
}

pub(crate) fn complete_event(_: &Value, event: &mut Value) {
    for time in ["eventTime", "firstTimestamp", "lastTimestamp"] {
        add(event, time, Value::Null);
    }
    add(event, "reportingComponent", json!(""));
    add(event, "reportingInstance", json!(""));
    add(event, "source", json!({}));
}

/// The selector is the one struct that is a pointer in Go alone.
pub(crate) fn complete_workload(given: &Value, workload: &mut Value) {
    if given["spec"]["selector"].is_null()
        && let Some(spec) = workload.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.remove("selector");
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
    (kind.does.blank)(&mut blank);
    blank
}

pub(crate) fn blank_pod(blank: &mut Value) {
    blank["spec"] = json!({"containers": null});
}

pub(crate) fn blank_node(blank: &mut Value) {
    blank["status"] = node_status();
}

pub(crate) fn blank_event(blank: &mut Value) {
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

pub(crate) fn blank_workload(blank: &mut Value) {
    let template = json!({"metadata": {}, "spec": {"containers": null}});
    blank["spec"] = json!({"selector": null, "strategy": {}, "template": template});
}

pub(crate) fn blank_autoscaler(blank: &mut Value) {
    blank["spec"] = json!({"scaleTargetRef": {}});
}

pub(crate) fn blank_network_policy(blank: &mut Value) {
    blank["spec"] = json!({"podSelector": {}});
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
