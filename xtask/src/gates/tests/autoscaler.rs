//! The autoscaler gate.

use serde_json::{Value, json};

use super::objects::object;
use super::{clock, expect};
use crate::gates::Verdict;
use crate::gates::autoscaler::{Snapshot, judge};

fn resource(name: &str, current: &Value) -> Value {
    json!({"type": "Resource", "resource": {"name": name, "current": current}})
}

fn wants(name: &str) -> Value {
    json!({"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization",
        "averageUtilization": 70}}})
}

fn world(conditions: &Value, current: &Value) -> Snapshot {
    let mut world = Snapshot::of("web");
    let hpa = json!({
        "metadata": {"name": "web"},
        "spec": {"maxReplicas": 10, "scaleTargetRef": {"kind": "Deployment", "name": "web"},
        "metrics": [wants("cpu"), wants("memory")]},
        "status": {"desiredReplicas": 3, "conditions": conditions, "currentMetrics": current},
    });
    world.autoscalers.insert("web".into(), object(hpa));
    world
}

fn active(status: &str, reason: &str, message: &str) -> Value {
    json!([{"type": "AbleToScale", "status": "True"}, {"type": "ScalingActive", "status": status,
        "reason": reason, "message": message}])
}

#[test]
fn opens_when_every_metric_has_a_value() {
    let current = json!([
        resource("memory", &json!({"averageUtilization": 31, "averageValue": "300Mi"})),
        resource("cpu", &json!({"averageUtilization": 4, "averageValue": "6m"})),
    ]);
    expect(
        &judge(&world(&active("True", "ValidMetricFound", ""), &current), &clock(0)),
        "open: reads cpu 4 %, memory 31 %",
    );
    let current = json!([
        resource("cpu", &json!({"averageValue": "6m"})),
        resource("memory", &json!({"averageValue": "300Mi"}))
    ]);
    expect(&judge(&world(&active("True", "", ""), &current), &clock(0)), "open: reads cpu 6m, memory 300Mi");
}

#[test]
fn names_the_metric_that_is_missing() {
    let cpu = json!([resource("cpu", &json!({"averageUtilization": 4}))]);
    expect(
        &judge(&world(&active("True", "ValidMetricFound", "x"), &cpu), &clock(0)),
        "closed: no value yet for memory (ValidMetricFound)",
    );
    // The controller writes an empty value for what it could not read.
    let empty = json!([resource("cpu", &json!({"averageUtilization": 4})), resource("", &json!({}))]);
    expect(
        &judge(&world(&active("True", "ValidMetricFound", "x"), &empty), &clock(0)),
        "closed: no value yet for memory (ValidMetricFound)",
    );
    let failed = active(
        "False",
        "FailedGetResourceMetric",
        "unable to get metrics for resource cpu: no metrics returned",
    );
    expect(
        &judge(&world(&failed, &json!([])), &clock(0)),
        "closed: no value yet for cpu and memory; scaling is not active (FailedGetResourceMetric: unable to \
         get metrics for resource cpu: no metrics returned)",
    );
    expect(
        &judge(&world(&json!([]), &json!([])), &clock(0)),
        "closed: no value yet for cpu and memory; the autoscaler has not read its target yet",
    );
    expect(&judge(&Snapshot::of("web"), &clock(0)), "closed: the autoscaler web does not exist");
}

#[test]
fn dooms_what_can_not_recover() {
    let disabled = active(
        "False",
        "ScalingDisabled",
        "scaling is disabled since the replica count of the target is zero",
    );
    assert!(matches!(judge(&world(&disabled, &json!([])), &clock(0)), Verdict::Doomed(..)));

    // An old pod on its way out may be the one without a request.
    let missing =
        active("False", "FailedGetResourceMetric", "missing request for cpu in container web of Pod web-1");
    let mut world = world(&missing, &json!([]));
    world.note(&clock(0));
    assert!(matches!(judge(&world, &clock(0)), Verdict::Suspect(_)));
    world.note(&clock(14));
    assert!(matches!(judge(&world, &clock(14)), Verdict::Suspect(_)));
    assert!(matches!(judge(&world, &clock(15)), Verdict::Doomed(..)));
}
