//! The columns of each kind, as `kubectl get` prints them, and what fills them.
//! Source: `pkg/printers/internalversion/printers.go` of Kubernetes 1.34.

pub(crate) mod cluster;
pub(crate) mod network;
pub(crate) mod pods;
pub(crate) mod workloads;

use serde_json::{Value, json};

use crate::kind::Columns;
use crate::meta::meta;
use crate::selectors::label_selector_text;
use crate::time;

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
