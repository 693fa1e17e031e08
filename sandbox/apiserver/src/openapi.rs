//! OpenAPI v3, as much as kubectl needs: which kinds there are, and that writes take `fieldValidation` and `dryRun`,
//! so that it leaves validation to the server. The v2 document, which kubectl wants before it applies a `List`, names no
//! kinds: kubectl then uses the types built into it.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Map, Value, json};

use crate::kinds::{KINDS, Kind, Storage};
use crate::metrics;
use crate::server::Api;
use crate::status::json_response;

const TITLE: &str = "Kubernetes";
const VERSION: &str = "v1.34.0-sandbox";

/// The answer to an OpenAPI path, `None` for any other.
pub(crate) fn answer(api: &Arc<Api>, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    if path == "/openapi/v2" {
        return Some(second_version(headers));
    }
    let rest = path.strip_prefix("/openapi/v3")?;
    if rest.is_empty() {
        let mut paths = Map::new();
        for kind in KINDS.iter().filter(|kind| kind.group != metrics::GROUP || metrics::available(&api.store))
        {
            let root = root(kind);
            paths.insert(
                root.clone(),
                json!({"serverRelativeURL": format!("/openapi/v3/{root}?hash=sandbox")}),
            );
        }
        return Some(json_response(200, &json!({"paths": paths})));
    }
    let wanted = rest.trim_start_matches('/');
    let kinds: Vec<&Kind> = KINDS.iter().filter(|kind| root(kind) == wanted).collect();
    if kinds.is_empty() {
        return None;
    }
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for kind in kinds {
        let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let name = schema_name(kind);
        schemas.insert(
            name.clone(),
            json!({
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {
                    "apiVersion": {"type": "string"}, "kind": {"type": "string"},
                    "metadata": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                },
                "x-kubernetes-group-version-kind": [gvk],
            }),
        );
        let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("/{wanted}{scope}/{}", kind.plural);
        let content =
            json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}});
        let operation = |action: &str, writes: bool| {
            let names: &[&str] = if writes { &["dryRun", "fieldManager", "fieldValidation"] } else { &[] };
            let parameters: Vec<Value> = names
                .iter()
                .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}))
                .collect();
            json!({
                "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk, "parameters": parameters,
                "responses": {"200": {"description": "OK", "content": content}},
            })
        };
        if kind.storage == Storage::Computed {
            continue;
        }
        paths.insert(
            collection.clone(),
            json!({"get": operation("list", false), "post": operation("post", true)}),
        );
        let mut patch = operation("patch", true);
        // Strategic merge is left out on purpose: kubectl would work patches out from these schemas.
        patch["requestBody"] = json!({"content": {
            "application/apply-patch+yaml": {}, "application/json-patch+json": {}, "application/merge-patch+json": {}}});
        paths.insert(
            format!("{collection}/{{name}}"),
            json!({
                "get": operation("get", false), "put": operation("put", true), "patch": patch,
                "delete": operation("delete", true),
            }),
        );
    }
    let document = json!({
        "openapi": "3.0.0", "info": {"title": TITLE, "version": VERSION},
        "paths": paths, "components": {"schemas": schemas},
    });
    Some(json_response(200, &document))
}

/// The v2 document, in the form that the client takes.
fn second_version(headers: &HeaderMap) -> Response<Body> {
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !accept.contains("proto-openapi.spec.v2") {
        let document = json!({"swagger": "2.0", "info": {"title": TITLE, "version": VERSION}, "paths": {}});
        return json_response(200, &document);
    }
    // `Document` of gnostic's OpenAPIv2.proto: swagger is field 1, info is field 2; of `Info`, title is 1, version is 2.
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

fn schema_name(kind: &Kind) -> String {
    let group = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or("") };
    format!("io.k8s.api.{group}.{}.{}", kind.version, kind.kind)
}
