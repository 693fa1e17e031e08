//! metrics.k8s.io: what the node measured, once an APIService says that the API is there.

use std::collections::BTreeMap;

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use crate::call::Call;
use crate::meta::meta;
use crate::request::View;
use crate::status::{ApiError, json_response};
use crate::store::{Object, Store};
use crate::{kinds, render, time};
use sandbox_contract::Sample;

/// The API group.
pub(crate) const GROUP: &str = "metrics.k8s.io";

/// Has somebody registered the metrics API?
pub(crate) fn available(store: &Store) -> bool {
    kinds::stored("apiregistration.k8s.io", "apiservices")
        .and_then(|kind| store.get(kind, "", "v1beta1.metrics.k8s.io"))
        .is_some()
}

/// get and list of PodMetrics and NodeMetrics.
pub(crate) fn answer(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let mut items = if call.kind.plural == "pods" { pods(call)? } else { nodes(call)? };
    if let Some(name) = call.name {
        let found = items.into_iter().find(|item| meta(item, "name") == name);
        let item = found.ok_or_else(|| {
            let mut error = ApiError::not_found(call.kind, &format!("{}/{name}", call.namespace));
            if call.namespace.is_empty() {
                error = ApiError::not_found(call.kind, name);
            }
            error
        })?;
        return Ok(json_response(200, &render::one(call.kind, &item, call.view)));
    }
    let selector = call.query.selector(call.kind)?;
    items.retain(|item| selector.matches(item));
    let version = call.api.store.version();
    if let View::Table(rows) = call.view {
        let objects: Vec<Object> = items.into_iter().map(Object::new).collect();
        let metadata = json!({"resourceVersion": version.to_string()});
        return Ok(json_response(200, &render::table(call.kind, rows, &objects, metadata)));
    }
    Ok(json_response(
        200,
        &json!({
            "kind": format!("{}List", call.kind.kind), "apiVersion": call.kind.api_version(), "metadata": {},
            "items": items,
        }),
    ))
}

fn nodes(call: &Call<'_>) -> Result<Vec<Value>, ApiError> {
    let sample = call.api.kubelet()?.usage().node;
    let Some(kind) = kinds::stored("", "nodes") else { return Ok(Vec::new()) };
    Ok(call
        .api
        .store
        .list(kind, None)
        .0
        .iter()
        .map(|node| {
            let mut item = head(call, node, &sample);
            item["usage"] = usage(&sample);
            item
        })
        .collect())
}

fn pods(call: &Call<'_>) -> Result<Vec<Value>, ApiError> {
    let measured = call.api.kubelet()?.usage().pods;
    let Some(kind) = kinds::stored("", "pods") else { return Ok(Vec::new()) };
    let wanted = |namespace: &str| call.namespace.is_empty() || call.namespace == namespace;
    let mut items = BTreeMap::new();
    for pod in measured.iter().filter(|pod| wanted(&pod.namespace)) {
        // A sample can outlive its pod by a moment; then there is nothing to show it on.
        let Some(object) = call.api.store.get(kind, &pod.namespace, &pod.pod) else { continue };
        let Some((_, first)) = pod.containers.first() else { continue };
        let mut item = head(call, &object, first);
        item["containers"] = pod
            .containers
            .iter()
            .map(|(name, sample)| json!({"name": name, "usage": usage(sample)}))
            .collect();
        items.insert((pod.namespace.clone(), pod.pod.clone()), item);
    }
    Ok(items.into_values().collect())
}

fn head(call: &Call<'_>, object: &Value, sample: &Sample) -> Value {
    let mut metadata = json!({"name": meta(object, "name"), "creationTimestamp": time::now()});
    for field in ["namespace", "labels"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    json!({
        "kind": call.kind.kind, "apiVersion": call.kind.api_version(), "metadata": metadata,
        "timestamp": time::milliseconds(sample.at), "window": window(sample),
    })
}

/// A Go duration, as metrics-server writes it: `15.2s`.
fn window(sample: &Sample) -> String {
    let ms = sample.window.as_millis();
    if ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{}.{:03}s", ms / 1000, ms % 1000)
    }
}

fn usage(sample: &Sample) -> Value {
    json!({"cpu": format!("{}n", sample.cpu_nanocores), "memory": format!("{}Ki",
        sample.memory_bytes / 1024)})
}
