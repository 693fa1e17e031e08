//! Deployments, ReplicaSets, and the budgets of their disruptions.

use serde_json::Value;

use super::numbers;
use super::pods::pod_spec;
use crate::causes::{Cause, Causes};
use crate::names::{self, labels};
use crate::selectors::label_selector_matches;

pub(crate) fn workload(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    numbers::not_negative(spec, "spec", &["replicas"], causes);
    let selector = &spec["selector"];
    let empty = ["matchLabels", "matchExpressions"].iter().all(|part| {
        selector[part].as_object().is_none_or(serde_json::Map::is_empty)
            && selector[part].as_array().is_none_or(Vec::is_empty)
    });
    let template_labels = &spec["template"]["metadata"]["labels"];
    if selector.is_null() {
        causes.push(Cause::required("spec.selector", ""));
    } else if empty {
        // A ReplicaSet's message names a deployment too.
        causes.push(Cause::invalid("spec.selector", selector, "empty selector is invalid for deployment"));
    }
    let well_formed = names::label_selector(selector, "spec.selector", causes);
    if !well_formed {
        causes.push(Cause::invalid("spec.selector", selector, "invalid label selector"));
    } else if selector.is_null() || !empty && !label_selector_matches(selector, template_labels) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", template_labels, why));
    }
    if let Some(old) = old
        && old["spec"]["selector"] != *selector
    {
        causes.push(Cause::invalid("spec.selector", selector, "field is immutable"));
    }
    labels(template_labels, "spec.template.metadata.labels", causes);
    let template = &spec["template"]["spec"];
    pod_spec(template, "spec.template.spec", causes);
    if template["restartPolicy"] != "Always" {
        causes.push(Cause::not_supported(
            "spec.template.spec.restartPolicy",
            &template["restartPolicy"],
            &["Always"],
        ));
    }
    if !template["activeDeadlineSeconds"].is_null() {
        let why = "activeDeadlineSeconds in ReplicaSet is not Supported";
        causes.push(Cause::forbidden("spec.template.spec.activeDeadlineSeconds", why));
    }
    strategy(&spec["strategy"], "spec.strategy", causes);
    numbers::not_negative(
        spec,
        "spec",
        &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"],
        causes,
    );
    if let Some(deadline) = spec["progressDeadlineSeconds"].as_i64()
        && deadline <= spec["minReadySeconds"].as_i64().unwrap_or(0)
    {
        causes.push(Cause::invalid(
            "spec.progressDeadlineSeconds",
            &spec["progressDeadlineSeconds"],
            "must be greater than minReadySeconds",
        ));
    }
    counts(&object["status"], causes);
}

/// How a Deployment's pods are replaced; a ReplicaSet has no say in it.
fn strategy(strategy: &Value, path: &str, causes: &mut Causes) {
    let rolling = &strategy["rollingUpdate"];
    match strategy["type"].as_str() {
        Some("Recreate") if !rolling.is_null() => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            causes.push(Cause::forbidden(format!("{path}.rollingUpdate"), why));
        }
        Some("RollingUpdate") => {
            let (surge, unavailable) = (&rolling["maxSurge"], &rolling["maxUnavailable"]);
            let field = format!("{path}.rollingUpdate.maxUnavailable");
            numbers::count_or_percent(unavailable, &field, causes);
            numbers::count_or_percent(surge, &format!("{path}.rollingUpdate.maxSurge"), causes);
            if numbers::is_zero(unavailable) && numbers::is_zero(surge) {
                let why = "may not be 0 when `maxSurge` is 0";
                causes.push(Cause::invalid(field.as_str(), unavailable, why));
            }
            numbers::at_most_the_whole(unavailable, &field, causes);
        }
        Some("Recreate") | None => {}
        Some(_) => {
            // As the Go struct is printed.
            let shown = format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", strategy["type"]);
            let message =
                format!("Unsupported value: {shown}: supported values: \"Recreate\", \"RollingUpdate\"");
            causes.push(Cause { reason: "FieldValueNotSupported", message, field: path.to_owned() });
        }
    }
}

/// What a Deployment or ReplicaSet counts in its status.
fn counts(status: &Value, causes: &mut Causes) {
    let fields = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "collisionCount",
    ];
    numbers::not_negative(status, "status", &fields, causes);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let parts = [
        ("updatedReplicas", "replicas", "cannot be greater than status.replicas"),
        ("fullyLabeledReplicas", "replicas", "cannot be greater than status.replicas"),
        ("readyReplicas", "replicas", "cannot be greater than status.replicas"),
        ("availableReplicas", "replicas", "cannot be greater than status.replicas"),
        ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
    ];
    for (part, whole, why) in parts {
        if count(part) > count(whole) {
            causes.push(Cause::invalid(format!("status.{part}"), &status[part], why));
        }
    }
}

pub(crate) fn disruption_budget(object: &Value, _: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        // As the Go struct is printed.
        let shown = format!(
            "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
            spec["minAvailable"],
            spec["selector"],
            spec["maxUnavailable"],
            spec["unhealthyPodEvictionPolicy"]
        );
        causes.push(Cause {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {shown}: minAvailable and maxUnavailable cannot be both set"),
            field: "spec".to_owned(),
        });
    }
    for field in ["minAvailable", "maxUnavailable"] {
        numbers::count_or_percent(&spec[field], &format!("spec.{field}"), causes);
        numbers::at_most_the_whole(&spec[field], &format!("spec.{field}"), causes);
    }
    names::label_selector(&spec["selector"], "spec.selector", causes);
    let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
    numbers::not_negative(&object["status"], "status", &counts, causes);
}
