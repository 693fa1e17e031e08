//! Objects as another version shows them, or by their metadata alone.

use serde_json::{Map, Value, json};

use crate::kind::Kind;

/// A stored object as `kind` shows it.
pub(crate) fn show(kind: &Kind, object: &Value) -> Value {
    (kind.does.show)(object)
}

/// An object of `kind` as it is stored.
pub(crate) fn store(kind: &Kind, object: Value) -> Value {
    (kind.does.store)(object)
}

/// `PartialObjectMetadata`.
pub(crate) fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// Core field and its name in events.k8s.io.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// A core event, as its own group has it.
pub(crate) fn event_to_new(event: &Value) -> Value {
    rename(event, "events.k8s.io/v1", false)
}

/// An event of its own group, as the core group has it.
#[allow(clippy::needless_pass_by_value, reason = "as every conversion on the way in")]
pub(crate) fn event_to_core(event: Value) -> Value {
    rename(&event, "v1", true)
}

fn rename(object: &Value, api_version: &str, to_core: bool) -> Value {
    let empty = Map::new();
    let mut renamed: Map<String, Value> = object
        .as_object()
        .unwrap_or(&empty)
        .iter()
        // The newer version leaves out what is empty.
        .filter(|(key, value)| to_core || !key.starts_with("reporting") || *value != "")
        .map(|(key, value)| {
            let key = EVENT_FIELDS
                .iter()
                .find_map(|(core, new)| match to_core {
                    true => (key == new).then_some(*core),
                    false => (key == core).then_some(*new),
                })
                .unwrap_or(key);
            (key.to_owned(), value.clone())
        })
        .collect();
    renamed.insert("apiVersion".to_owned(), json!(api_version));
    Value::Object(renamed)
}

/// The cpu utilisation metric moves to a field of its own; other metrics are not shown.
pub(crate) fn autoscaler_to_v1(object: &Value) -> Value {
    let cpu = |metrics: &Value, field: &str| {
        metrics.as_array().and_then(|list| {
            list.iter()
                .find(|metric| metric["resource"]["name"] == "cpu")
                .map(|metric| metric["resource"][field]["averageUtilization"].clone())
        })
    };
    let mut v1 = object.clone();
    v1["apiVersion"] = json!("autoscaling/v1");
    let target = cpu(&object["spec"]["metrics"], "target").filter(|value| !value.is_null());
    let current = cpu(&object["status"]["currentMetrics"], "current").filter(|value| !value.is_null());
    if let Some(spec) = v1["spec"].as_object_mut() {
        spec.remove("metrics");
        spec.remove("behavior");
        if let Some(target) = target {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), target);
        }
    }
    if let Some(status) = v1.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("currentMetrics");
        status.remove("conditions");
        for field in ["currentReplicas", "desiredReplicas"] {
            status.entry(field).or_insert(json!(0));
        }
        if let Some(current) = current {
            status.insert("currentCPUUtilizationPercentage".to_owned(), current);
        }
    }
    v1
}

pub(crate) fn autoscaler_to_v2(mut object: Value) -> Value {
    object["apiVersion"] = json!("autoscaling/v2");
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let target = spec.remove("targetCPUUtilizationPercentage").unwrap_or(json!(80));
        spec.insert(
            "metrics".to_owned(),
            json!([{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}}]),
        );
    }
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    object
}
