//! OpenAPI v3: the kinds with their fields, for `kubectl explain`, and that writes take `fieldValidation` and `dryRun`,
//! so that kubectl leaves validation to the server. The v2 document, which kubectl wants before it applies a `List`,
//! names no kinds: kubectl then uses the types built into it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::kind::{Kind, Storage};
use crate::kinds::KINDS;
use crate::metrics;
use crate::state::Api;
use crate::status::json_response;

const TITLE: &str = "Kubernetes";
const VERSION: &str = "v1.34.0-sandbox";

/// The schemas of the kinds and of what they are made of, by name; `sandbox/apiserver/schemas` writes the file.
const SCHEMAS: &str = include_str!("schemas.json");
const REFERENCE: &str = "#/components/schemas/";

/// The answer to an OpenAPI path, `None` for any other.
pub(crate) fn answer(api: &Arc<Api>, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    if path == "/openapi/v2" {
        return Some(second_version(headers));
    }
    let rest = path.strip_prefix("/openapi/v3")?;
    if rest.is_empty() {
        let available = |group: &str| group != metrics::GROUP || metrics::available(&api.store);
        let served = DOCUMENTS.iter().filter(|(_, document)| available(document.group));
        let paths: Map<String, Value> = served
            .map(|(root, document)| {
                let url = format!("/openapi/v3/{root}?hash={}", document.hash);
                (root.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        return Some(json_response(200, &json!({"paths": paths})));
    }
    let document = DOCUMENTS.get(rest.trim_start_matches('/'))?;
    let mut response = Response::new(Body::from(document.text.clone()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ETAG, HeaderValue::from_str(&format!("\"{}\"", document.hash)).ok()?);
    Some(response)
}

/// The document of one version of a group.
struct Document {
    group: &'static str,
    text: Bytes,
    /// Changes with the text: clients keep documents by it.
    hash: String,
}

/// Every document, by its path: made once, when one is asked for.
static DOCUMENTS: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
    let schemas: Map<String, Value> = serde_json::from_str(SCHEMAS).unwrap_or_default();
    let mut by_root: BTreeMap<String, Vec<&Kind>> = BTreeMap::new();
    for kind in KINDS {
        by_root.entry(root(kind)).or_default().push(kind);
    }
    let document = |(root, kinds): (String, Vec<&Kind>)| {
        let text = Bytes::from(describe(&root, &kinds, &schemas).to_string());
        let hash = Sha256::digest(&text).iter().map(|byte| format!("{byte:02X}")).collect();
        (root, Document { group: kinds[0].group, text, hash })
    };
    by_root.into_iter().map(document).collect()
});

/// The document of the kinds under one path.
fn describe(root: &str, kinds: &[&Kind], all: &Map<String, Value>) -> Value {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for kind in kinds {
        let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let schema = match schema_name(kind, all) {
            Some(name) => {
                add(name, all, &mut schemas);
                schemas[name]["x-kubernetes-group-version-kind"] = json!([gvk]);
                json!({"$ref": format!("{REFERENCE}{name}")})
            }
            None => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        };
        let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("/{root}{scope}/{}", kind.plural);
        let content = json!({"application/json": {"schema": schema}});
        let operation = |action: &str, writes: bool| {
            let names: &[&str] = if writes { &["dryRun", "fieldManager", "fieldValidation"] } else { &[] };
            let parameters: Vec<Value> = names
                .iter()
                .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}))
                .collect();
            json!({
                "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk,
                "parameters": parameters,
                "responses": {"200": {"description": "OK", "content": content}},
            })
        };
        if kind.storage == Storage::Computed {
            let only = if kind.verbs().contains(&"list") {
                json!({"get": operation("list", false)})
            } else {
                json!({"post": operation("post", true)})
            };
            paths.insert(collection, only);
            continue;
        }
        paths.insert(
            collection.clone(),
            json!({"get": operation("list", false), "post": operation("post", true)}),
        );
        let mut patch = operation("patch", true);
        // Strategic merge is left out on purpose: kubectl would work patches out from these schemas.
        patch["requestBody"] = json!({"content": {
            "application/apply-patch+yaml": {}, "application/json-patch+json": {},
            "application/merge-patch+json": {}}});
        paths.insert(
            format!("{collection}/{{name}}"),
            json!({
                "get": operation("get", false), "put": operation("put", true), "patch": patch,
                "delete": operation("delete", true),
            }),
        );
    }
    json!({
        "openapi": "3.0.0", "info": {"title": TITLE, "version": VERSION},
        "paths": paths, "components": {"schemas": schemas},
    })
}

/// The name of a kind's schema, such as `io.k8s.api.apps.v1.Deployment`; the metrics, which an add-on serves, have
/// none.
fn schema_name<'a>(kind: &Kind, all: &'a Map<String, Value>) -> Option<&'a str> {
    let group = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() };
    let end = format!(".{group}.{}.{}", kind.version, kind.kind);
    all.keys().map(String::as_str).find(|name| name.ends_with(&end))
}

/// Adds a schema and all that it refers to.
fn add(name: &str, all: &Map<String, Value>, schemas: &mut Map<String, Value>) {
    let Some(schema) = all.get(name).filter(|_| !schemas.contains_key(name)) else { return };
    schemas.insert(name.to_owned(), schema.clone());
    for name in references(schema) {
        add(name, all, schemas);
    }
}

fn references(schema: &Value) -> Vec<&str> {
    match schema {
        Value::String(text) => text.strip_prefix(REFERENCE).into_iter().collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::Object(fields) => fields.values().flat_map(references).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

/// The v2 document, in the form that the client takes.
fn second_version(headers: &HeaderMap) -> Response<Body> {
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !accept.contains("proto-openapi.spec.v2") {
        let document = json!({"swagger": "2.0", "info": {"title": TITLE, "version": VERSION}, "paths": {}});
        return json_response(200, &document);
    }
    // `Document` of gnostic's OpenAPIv2.proto: swagger is field 1, info is field 2; of `Info`, title is 1, version is
    // 2.
    let text = |field: u8, bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).unwrap_or(0);
        [&[field << 3 | 2, length], bytes].concat()
    };
    let info = [text(1, TITLE.as_bytes()), text(2, VERSION.as_bytes())].concat();
    let mut response = Response::new(Body::from([text(1, b"2.0"), text(2, &info)].concat()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    response
}

fn root(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}/{}", kind.group, kind.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_schema_and_every_schema_what_it_refers_to() {
        let all: Map<String, Value> = serde_json::from_str(SCHEMAS).expect("the schemas");
        let without: Vec<_> = KINDS.iter().filter(|kind| schema_name(kind, &all).is_none()).collect();
        assert!(without.iter().all(|kind| kind.group == metrics::GROUP), "{without:?}");
        let missing: Vec<_> =
            all.values().flat_map(references).filter(|name| !all.contains_key(*name)).collect();
        assert_eq!(missing, [""; 0]);
    }

    /// What `explain` shows is what decoding takes.
    #[test]
    fn the_schemas_are_of_the_types_in_use() {
        let (lock, manifest) = (include_str!("../../../Cargo.lock"), include_str!("../schemas/Cargo.toml"));
        let locked =
            lock.split("name = \"k8s-openapi\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next());
        let version = locked.expect("k8s-openapi is locked");
        assert!(
            manifest.contains(&format!("k8s-openapi = {{ version = \"={version}\"")),
            "k8s-openapi is {version}: set it in schemas/Cargo.toml, and write the schemas again"
        );
    }
}
