//! Autoscalers.

use serde_json::{Value, json};

use super::numbers;
use crate::causes::{Cause, Causes};

pub(crate) fn autoscaler(object: &Value, _: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    let (least, most) =
        (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(0));
    if least < 1 {
        causes.push(Cause::invalid(
            "spec.minReplicas",
            &spec["minReplicas"],
            "must be greater than or equal to 1",
        ));
    }
    if most == 0 {
        causes.push(Cause::required("spec.maxReplicas", "must be set and greater than 0"));
    } else if most < 0 {
        let why = "must be greater than or equal to 1";
        causes.push(Cause::invalid("spec.maxReplicas", &spec["maxReplicas"], why));
    } else if most < least {
        let why = "must be greater than or equal to `minReplicas`";
        causes.push(Cause::invalid("spec.maxReplicas", &spec["maxReplicas"], why));
    }
    for field in ["kind", "name"] {
        if spec["scaleTargetRef"][field].as_str().unwrap_or("").is_empty() {
            causes.push(Cause::required(format!("spec.scaleTargetRef.{field}"), ""));
        }
    }
    let version = &spec["scaleTargetRef"]["apiVersion"];
    if !version.as_str().is_some_and(|version| version.contains('/')) {
        let shown = version.as_str().unwrap_or("");
        causes.push(Cause::invalid(
            "spec.scaleTargetRef.apiVersion",
            &json!(shown),
            "apiVersion must specify API group",
        ));
    }
    for (index, metric) in spec["metrics"].as_array().into_iter().flatten().enumerate() {
        target(metric, &format!("spec.metrics[{index}]"), causes);
    }
    for direction in ["scaleUp", "scaleDown"] {
        rules(&spec["behavior"][direction], &format!("spec.behavior.{direction}"), causes);
    }
    let external = |metric: &Value| metric["type"] == "Object" || metric["type"] == "External";
    if least == 0 && !spec["metrics"].as_array().is_some_and(|metrics| metrics.iter().any(external)) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        causes.push(Cause::forbidden("spec.metrics", why));
    }
    let counts = ["currentReplicas", "desiredReplicas"];
    numbers::not_negative(&object["status"], "status", &counts, causes);
}

/// What a metric is held at.
fn target(metric: &Value, path: &str, causes: &mut Causes) {
    let sources = ["resource", "containerResource", "pods", "object", "external"];
    for source in sources.into_iter().filter(|source| metric[*source].is_object()) {
        let (path, target) = (format!("{path}.{source}.target"), &metric[source]["target"]);
        let is_share = source == "resource" || source == "containerResource";
        if is_share && target["averageUtilization"].is_null() && target["averageValue"].is_null() {
            let why = "must set either a target raw value or a target utilization";
            causes.push(Cause::required(format!("{path}.averageUtilization"), why));
        }
        numbers::positive(target, &path, &["averageUtilization"], causes);
        for field in ["value", "averageValue"] {
            if target[field].as_str().and_then(quantity::value).is_some_and(|value| value <= 0.0) {
                causes.push(Cause::invalid(format!("{path}.{field}"), &target[field], "must be positive"));
            }
        }
    }
}

/// How fast to scale in one direction.
fn rules(rules: &Value, path: &str, causes: &mut Causes) {
    const MAX_WINDOW_SECONDS: i64 = 3600;
    const MAX_PERIOD_SECONDS: i64 = 1800;
    let window =
        [("stabilizationWindowSeconds", 0, "must be greater than or equal to zero", MAX_WINDOW_SECONDS)];
    bounded(rules, path, &window, causes);
    let mut one_of = |field: String, value: &Value, known: &[&str]| {
        if value.as_str().is_some_and(|value| !known.contains(&value)) {
            causes.push(Cause::not_supported(field, value, known));
        }
    };
    one_of(format!("{path}.selectPolicy"), &rules["selectPolicy"], &["Disabled", "Max", "Min"]);
    for (index, policy) in rules["policies"].as_array().into_iter().flatten().enumerate() {
        one_of(format!("{path}.policies[{index}].type"), &policy["type"], &["Percent", "Pods"]);
    }
    for (index, policy) in rules["policies"].as_array().into_iter().flatten().enumerate() {
        let fields = [
            ("value", 1, "must be greater than zero", i64::MAX),
            ("periodSeconds", 1, "must be greater than zero", MAX_PERIOD_SECONDS),
        ];
        bounded(policy, &format!("{path}.policies[{index}]"), &fields, causes);
    }
}

/// Refuses those fields that are below their least value, in these words, or above their largest.
fn bounded(object: &Value, path: &str, fields: &[(&str, i64, &str, i64)], causes: &mut Causes) {
    for (field, least, why, most) in fields {
        numbers::at_least(*least, object, path, &[field], why, causes);
        if object[*field].as_i64().is_some_and(|number| number > *most) {
            let why = format!("must be less than or equal to {most}");
            causes.push(Cause::invalid(format!("{path}.{field}"), &object[*field], &why));
        }
    }
}
