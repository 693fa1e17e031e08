//! Validating webhooks: asked on create and update, dry runs too.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::call::Call;
use crate::kinds;
use crate::meta::meta;
use crate::selectors::label_selector_matches;
use crate::status::ApiError;
use crate::store::Store;

/// What is about to happen to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
        }
    }
}

/// Asks every webhook that the write concerns; the first that says no, or that cannot be asked, ends it.
pub(crate) async fn review(
    call: &Call<'_>,
    operation: Operation,
    object: &Value,
    old: Option<&Value>,
    dry_run: bool,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let Some(kind) = kinds::stored("admissionregistration.k8s.io", "validatingwebhookconfigurations") else {
        return Ok(());
    };
    if call.kind.stored().is(kind.group, kind.plural) {
        return Ok(());
    }
    for configuration in call.api.store.list(kind, None).0 {
        for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
            if concerns(call, webhook, operation, object) {
                ask(call, webhook, operation, object, old, dry_run, warnings).await?;
            }
        }
    }
    Ok(())
}

fn concerns(call: &Call<'_>, webhook: &Value, operation: Operation, object: &Value) -> bool {
    let kind = call.kind.stored();
    let lists = |rule: &Value, field: &str, value: &str| {
        rule[field].as_array().is_some_and(|list| list.iter().any(|item| item == "*" || *item == *value))
    };
    let by_rule = webhook["rules"].as_array().into_iter().flatten().any(|rule| {
        lists(rule, "operations", operation.name())
            && lists(rule, "apiGroups", kind.group)
            && lists(rule, "apiVersions", kind.version)
            && (lists(rule, "resources", kind.plural) || lists(rule, "resources", "*/*"))
    });
    let namespace_labels = kinds::stored("", "namespaces")
        .and_then(|namespaces| call.api.store.get(namespaces, "", call.namespace))
        .map(|namespace| namespace["metadata"]["labels"].clone())
        .unwrap_or_default();
    by_rule
        && label_selector_matches(&webhook["objectSelector"], &object["metadata"]["labels"])
        && label_selector_matches(&webhook["namespaceSelector"], &namespace_labels)
}

async fn ask(
    call: &Call<'_>,
    webhook: &Value,
    operation: Operation,
    object: &Value,
    old: Option<&Value>,
    dry_run: bool,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let name = webhook["name"].as_str().unwrap_or("");
    let request = request(call, operation, object, old, dry_run);
    let answer = match post(&call.api.store, webhook, &request).await {
        Ok(answer) => answer,
        Err(_) if webhook["failurePolicy"] == "Ignore" => return Ok(()),
        Err(why) => {
            return Err(ApiError::internal(format!(
                "failed calling webhook \"{name}\": failed to call webhook: {why}"
            )));
        }
    };
    let response = &answer["response"];
    for warning in response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        warnings.push(warning.to_owned());
    }
    if response["allowed"] == true {
        return Ok(());
    }
    let status = &response["status"];
    let message = match status["message"].as_str().or(status["reason"].as_str()) {
        Some(why) if !why.is_empty() => format!("admission webhook \"{name}\" denied the request: {why}"),
        _ => format!("admission webhook \"{name}\" denied the request without explanation"),
    };
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(400);
    let (code, reason) = match code {
        403 => (403, "Forbidden"),
        422 => (422, "Invalid"),
        code if (400..600).contains(&code) => (code, "BadRequest"),
        _ => (400, "BadRequest"),
    };
    Err(ApiError::new(code, reason, message))
}

fn request(
    call: &Call<'_>,
    operation: Operation,
    object: &Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Value {
    let kind = call.kind.stored();
    let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let gvr = json!({"group": kind.group, "version": kind.version, "resource": kind.plural});
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": uuid::Uuid::new_v4().to_string(),
            "kind": gvk, "resource": gvr, "requestKind": gvk, "requestResource": gvr,
            "name": meta(object, "name"), "namespace": meta(object, "namespace"),
            "operation": operation.name(),
            "userInfo": {"username": "sandbox-admin", "groups": ["system:masters", "system:authenticated"]},
            "object": object, "oldObject": old, "dryRun": dry_run,
            "options": {"kind": if old.is_some() { "UpdateOptions" } else { "CreateOptions" },
            "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

/// Sends the review; errors read as Go's HTTP client words them.
async fn post(store: &Store, webhook: &Value, review: &Value) -> Result<Value, String> {
    let config = &webhook["clientConfig"];
    let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30);
    let (shown, target) = match config["url"].as_str() {
        Some(url) => (format!("{url}?timeout={seconds}s"), url.to_owned()),
        None => {
            let (shown, address) = service_target(store, &config["service"]);
            let shown = format!("{shown}?timeout={seconds}s");
            let path = config["service"]["path"].as_str().unwrap_or("/");
            match address {
                Ok(address) => (shown, format!("http://{address}{path}")),
                Err(why) => return Err(format!("Post \"{shown}\": {why}")),
            }
        }
    };
    let failed = |why: &str| format!("Post \"{shown}\": {why}");
    let request = Request::builder()
        .method(Method::POST)
        .uri(target)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, "application/json")
        .body(Full::new(Bytes::from(review.to_string())))
        .map_err(|error| failed(&error.to_string()))?;
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let exchange = async {
        let response =
            client.request(request).await.map_err(|error| failed(&dial_error(&authority, &error)))?;
        let status = response.status();
        let body =
            response.into_body().collect().await.map_err(|error| failed(&error.to_string()))?.to_bytes();
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body).trim().to_owned();
            return Err(if text.is_empty() {
                format!(
                    "the server responded with the status code {} but did not return more information",
                    status.as_u16()
                )
            } else {
                text
            });
        }
        serde_json::from_slice(&body).map_err(|error| format!("reading the webhook's answer: {error}"))
    };
    match tokio::time::timeout(Duration::from_secs(seconds), exchange).await {
        Ok(result) => result,
        Err(_) => Err(failed("context deadline exceeded")),
    }
}

fn dial_error(authority: &str, error: &hyper_util::client::legacy::Error) -> String {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return format!("dial tcp {authority}: connect: connection refused");
        }
        source = inner.source();
    }
    if error.is_connect() { format!("dial tcp {authority}: {error}") } else { "EOF".to_owned() }
}

/// The URL as errors show it, and the address of a ready endpoint of the service.
fn service_target(store: &Store, reference: &Value) -> (String, Result<String, String>) {
    let text = |field: &str| reference[field].as_str().unwrap_or("").to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let port = reference["port"].as_i64().unwrap_or(443);
    let shown = format!("https://{name}.{namespace}.svc:{port}{}", reference["path"].as_str().unwrap_or("/"));
    let service = kinds::stored("", "services").and_then(|kind| store.get(kind, &namespace, &name));
    let Some(service) = service else { return (shown, Err(format!("service \"{name}\" not found"))) };
    let service_port =
        service["spec"]["ports"].as_array().into_iter().flatten().find(|candidate| candidate["port"] == port);
    let Some(service_port) = service_port else {
        return (shown, Err(format!("no service port {port} found for service \"{name}\"")));
    };
    let wanted = service_port["name"].as_str().unwrap_or("");
    let slices = kinds::stored("discovery.k8s.io", "endpointslices")
        .map(|kind| store.list(kind, Some(&namespace)).0)
        .unwrap_or_default();
    for slice in slices {
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] != *name {
            continue;
        }
        let port = slice["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|port| port["name"].as_str().unwrap_or("") == wanted)
            .and_then(|port| port["port"].as_u64());
        let endpoint = slice["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|endpoint| endpoint["conditions"]["ready"] != false)
            .and_then(|endpoint| endpoint["addresses"][0].as_str());
        if let (Some(port), Some(address)) = (port, endpoint) {
            return (shown, Ok(format!("{address}:{port}")));
        }
    }
    (shown, Err(format!("no endpoints available for service \"{name}\"")))
}
