//! Discovery: which groups, versions and kinds there are, both as one document and one by one.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Value, json};

use crate::kind::Kind;
use crate::kinds::KINDS;
use crate::metrics;
use crate::state::Api;
use crate::status::json_response;

/// The answer to a discovery path, `None` for any other.
pub(crate) fn answer(api: &Arc<Api>, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let served: Vec<&'static Kind> =
        KINDS.iter().filter(|kind| kind.group != metrics::GROUP || metrics::available(&api.store)).collect();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let value = match parts.as_slice() {
        ["api"] | ["apis"] => {
            let core = parts == ["api"];
            if let Some(version) = aggregated_version(headers) {
                return Some(aggregated(&served, core, version));
            }
            if core { core_versions() } else { group_list(&served) }
        }
        ["api", version] => resource_list(&served, "", version)?,
        ["apis", group] => group_of(&served, group)?,
        ["apis", group, version] => resource_list(&served, group, version)?,
        _ => return None,
    };
    Some(json_response(200, &value))
}

fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// Groups in the order of the table.
fn groups(served: &[&'static Kind]) -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for kind in served.iter().filter(|kind| !kind.group.is_empty()) {
        if !names.contains(&kind.group) {
            names.push(kind.group);
        }
    }
    names
}

/// Versions of a group, the preferred one first.
fn versions(served: &[&'static Kind], group: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for kind in served.iter().filter(|kind| kind.group == group) {
        if !names.contains(&kind.version) {
            names.push(kind.version);
        }
    }
    names
}

fn group_list(served: &[&'static Kind]) -> Value {
    let list: Vec<Value> =
        groups(served).into_iter().filter_map(|group| group_entry(served, group)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
}

fn group_entry(served: &[&'static Kind], group: &str) -> Option<Value> {
    let entry = |version: &&str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let versions = versions(served, group);
    let preferred = entry(versions.first()?);
    Some(json!({"name": group, "versions": versions.iter().map(entry).collect::<Vec<_>>(),
            "preferredVersion": preferred}))
}

fn group_of(served: &[&'static Kind], group: &str) -> Option<Value> {
    let mut value = group_entry(served, group)?;
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

fn resource_list(served: &[&'static Kind], group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in served.iter().filter(|kind| kind.group == group && kind.version == version) {
        let mut entry = json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs(),
        });
        if !kind.short.is_empty() {
            entry["shortNames"] = json!(kind.short);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        resources.push(entry);
        for subresource in kind.subresources {
            let (group, version, sub_kind) = subresource_kind(kind, subresource);
            let mut entry = json!({
                "name": format!("{}/{subresource}", kind.plural), "singularName": "",
                "namespaced": kind.namespaced,
                "kind": sub_kind, "verbs": subresource_verbs(subresource),
            });
            if sub_kind != kind.kind {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            resources.push(entry);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    (!resources.is_empty()).then(|| {
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
            "resources": resources})
    })
}

fn subresource_kind(kind: &Kind, subresource: &str) -> (&'static str, &'static str, &'static str) {
    match subresource {
        "scale" => ("autoscaling", "v1", "Scale"),
        "eviction" => ("policy", "v1", "Eviction"),
        "binding" => ("", "v1", "Binding"),
        "portforward" => ("", "v1", "PodPortForwardOptions"),
        "exec" => ("", "v1", "PodExecOptions"),
        "attach" => ("", "v1", "PodAttachOptions"),
        _ => (kind.group, kind.version, kind.kind),
    }
}

fn subresource_verbs(subresource: &str) -> &'static [&'static str] {
    match subresource {
        "log" => &["get"],
        "portforward" | "exec" | "attach" => &["create", "get"],
        "eviction" | "binding" => &["create"],
        "finalize" => &["update"],
        _ => &["get", "patch", "update"],
    }
}

/// The version of the one-document form that the client takes.
fn aggregated_version(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    accept.split(',').filter(|form| form.contains("as=APIGroupDiscoveryList")).find_map(|form| {
        ["v2", "v2beta1"]
            .into_iter()
            .find(|version| form.split(';').any(|part| part.trim() == format!("v={version}")))
    })
}

fn aggregated(served: &[&'static Kind], core: bool, form: &str) -> Response<Body> {
    let names = if core { vec![""] } else { groups(served) };
    let items: Vec<Value> = names
        .into_iter()
        .map(|group| {
            let versions: Vec<Value> = versions(served, group)
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> = served
                        .iter()
                        .filter(|kind| kind.group == group && kind.version == version)
                        .map(|kind| aggregated_resource(kind))
                        .collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{form}"), "metadata": {},
        "items": items,
    });
    let mut response = json_response(200, &list);
    let content_type = format!("application/json;g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList");
    if let Ok(value) = HeaderValue::from_str(&content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

fn aggregated_resource(kind: &Kind) -> Value {
    let gvk = |(group, version, kind): (&str, &str, &str)| {
        json!({"group": group, "version": version,
        "kind": kind})
    };
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|subresource| {
            json!({
                "subresource": subresource, "responseKind": gvk(subresource_kind(kind, subresource)),
                "verbs": subresource_verbs(subresource),
            })
        })
        .collect();
    let mut entry = json!({
        "resource": kind.plural, "responseKind": gvk((kind.group, kind.version, kind.kind)),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular, "verbs": kind.verbs(), "shortNames": kind.short,
        "categories": kind.categories,
    });
    if !subresources.is_empty() {
        entry["subresources"] = Value::Array(subresources);
    }
    entry
}
