//! Tables as `kubectl get` prints them: columns and cells are worked out by the server.
//! Source of the columns: `pkg/printers/internalversion/printers.go` of Kubernetes 1.34.

mod cluster;
mod network;
mod pods;
mod workloads;

use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::request::Rows;
use crate::selectors::label_selector_text;
use crate::store::meta;
use crate::{time, views};

/// The columns of a kind and how to fill them.
pub(crate) struct Columns {
    /// Name, and whether only `-o wide` shows it.
    pub(crate) names: &'static [(&'static str, bool)],
    pub(crate) cells: fn(&Value) -> Vec<Value>,
}

/// Rows for objects.
pub(crate) fn of<'a>(kind: &Kind, rows: Rows, objects: impl Iterator<Item = &'a Value>) -> Value {
    let definitions: Vec<Value> = columns(kind)
        .names
        .iter()
        .map(|(name, wide)| {
            let number = match kind.kind {
                "ReplicaSet" => ["Desired", "Current", "Ready"].contains(name),
                _ => *name == "Allowed Disruptions",
            };
            json!({
                "name": name, "type": if number { "integer" } else { "string" },
                "format": if *name == "Name" { "name" } else { "" }, "description": "",
                "priority": i32::from(*wide),
            })
        })
        .collect();
    let rows: Vec<Value> = objects.map(|object| row(kind, rows, object)).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": definitions, "rows": rows})
}

/// The row of one object.
pub(crate) fn row(kind: &Kind, rows: Rows, object: &Value) -> Value {
    let shown = match rows {
        Rows::Nothing => Value::Null,
        Rows::Metadata => views::metadata_only(object),
        Rows::Object => views::show(kind, object),
    };
    let mut row = json!({"cells": (columns(kind).cells)(object), "object": shown});
    if let Some(condition) = pods::completed(object).filter(|_| kind.is("", "pods")) {
        row["conditions"] = json!([condition]);
    }
    row
}

fn columns(kind: &Kind) -> Columns {
    match (kind.group, kind.kind) {
        ("", "Pod") => pods::POD,
        ("", "Node") => cluster::NODE,
        ("", "Namespace") => cluster::NAMESPACE,
        ("", "ConfigMap") => cluster::CONFIG_MAP,
        ("", "Secret") => cluster::SECRET,
        ("", "ServiceAccount") => cluster::SERVICE_ACCOUNT,
        ("" | "events.k8s.io", "Event") => cluster::EVENT,
        ("", "Service") => network::SERVICE,
        ("", "Endpoints") => network::ENDPOINTS,
        ("discovery.k8s.io", _) => network::ENDPOINT_SLICE,
        ("networking.k8s.io", "Ingress") => network::INGRESS,
        ("networking.k8s.io", "IngressClass") => network::INGRESS_CLASS,
        ("networking.k8s.io", "NetworkPolicy") => network::NETWORK_POLICY,
        ("apps", "Deployment") => workloads::DEPLOYMENT,
        ("apps", "ReplicaSet") => workloads::REPLICA_SET,
        ("autoscaling", _) => workloads::AUTOSCALER,
        ("policy", _) => workloads::DISRUPTION_BUDGET,
        ("coordination.k8s.io", _) => cluster::LEASE,
        ("apiregistration.k8s.io", _) => cluster::API_SERVICE,
        ("admissionregistration.k8s.io", _) => cluster::WEBHOOKS,
        _ => cluster::OTHER,
    }
}

fn name(object: &Value) -> Value {
    json!(meta(object, "name"))
}

fn age(object: &Value) -> Value {
    json!(time::age(meta(object, "creationTimestamp")))
}

/// `<none>` for nothing.
fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    path.iter().fold(value, |value, field| &value[field]).as_str().unwrap_or("")
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A label selector or a map of labels, as text.
fn selector(value: &Value) -> Value {
    or_none(&label_selector_text(value))
}

/// Names and images of the containers of a pod spec.
fn containers(spec: &Value) -> [Value; 2] {
    let join = |field: &str| {
        json!(items(&spec["containers"]).iter().map(|c| text(c, &[field])).collect::<Vec<_>>().join(","))
    };
    [join("name"), join("image")]
}
