//! The validating webhook for Ingresses: AdmissionReview in, AdmissionReview out.

use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::translate::{self, Objects};

/// Answers an AdmissionReview. `objects` is what the cluster holds, as far as this controller has seen.
///
/// # Errors
/// A message, if the review itself can't be read.
pub(crate) fn review(body: &[u8], objects: &Objects, controller: &str) -> Result<Value, String> {
    let review: Value =
        serde_json::from_slice(body).map_err(|error| format!("reading the AdmissionReview: {error}"))?;
    let request = review.get("request").ok_or("the AdmissionReview has no request")?;
    let uid = request.get("uid").and_then(Value::as_str).ok_or("the request has no uid")?;
    let mut response = json!({"uid": uid, "allowed": true});
    let kind = request.pointer("/kind/kind").and_then(Value::as_str);
    let object = request.get("object").filter(|object| !object.is_null());
    if let (Some("Ingress") | None, Some(object)) = (kind, object) {
        match serde_json::from_value::<Ingress>(object.clone()) {
            Err(error) => deny(&mut response, &format!("reading the Ingress: {error}")),
            Ok(mut ingress) => {
                if ingress.metadata.namespace.is_none() {
                    ingress.metadata.namespace =
                        request.get("namespace").and_then(Value::as_str).map(str::to_string);
                }
                if translate::is_served(&ingress, &objects.classes, controller) {
                    match validate(&ingress, objects, controller) {
                        Err(reason) => deny(&mut response, &reason),
                        Ok(warnings) if !warnings.is_empty() => {
                            if let Some(response) = response.as_object_mut() {
                                response.insert("warnings".into(), json!(warnings));
                            }
                        }
                        Ok(_) => {}
                    }
                }
            }
        }
    }
    Ok(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

fn deny(response: &mut Value, message: &str) {
    if let Some(response) = response.as_object_mut() {
        response.insert("allowed".into(), json!(false));
        response.insert(
            "status".into(),
            json!({"status": "Failure", "message": message, "reason": "BadRequest", "code": 400}),
        );
    }
}

/// The warnings of an Ingress that is good, or why it is not.
fn validate(ingress: &Ingress, objects: &Objects, controller: &str) -> Result<Vec<String>, String> {
    for rule in ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten()) {
        if let Some(host) = rule.host.as_deref().filter(|host| !host.is_empty())
            && !is_host(host)
        {
            return Err(format!("host \"{host}\" is not a DNS name, with or without a leading \"*.\""));
        }
        for path in rule.http.iter().flat_map(|http| &http.paths) {
            if !["Exact", "Prefix", "ImplementationSpecific"].contains(&path.path_type.as_str()) {
                return Err(format!("path type \"{}\" is not known", path.path_type));
            }
            let text = path.path.as_deref().unwrap_or_default();
            if !(text.starts_with('/') || text.is_empty() && path.path_type == "ImplementationSpecific") {
                return Err(format!("path \"{text}\" must begin with a slash"));
            }
        }
    }
    let is_self =
        |other: &Ingress| other.name_any() == ingress.name_any() && other.namespace() == ingress.namespace();
    for other in objects.served_by(controller).into_iter().filter(|other| !is_self(other)) {
        let taken = translate::paths(other);
        for (host, path, kind, _) in translate::paths(ingress) {
            if taken.iter().any(|(h, p, k, _)| (h, p, k) == (&host, &path, &kind)) {
                // ingress-nginx's wording; it calls the host of a rule without one "_".
                let host = if host.is_empty() { "_" } else { &host };
                let (namespace, name) = (other.namespace().unwrap_or_default(), other.name_any());
                return Err(format!(
                    "host \"{host}\" and path \"{path}\" is already defined in ingress {namespace}/{name}"
                ));
            }
        }
    }
    Ok(translate::ignored_annotations(ingress)
        .into_iter()
        .map(|key| format!("annotation {key} has no effect in the sandbox"))
        .collect())
}

/// A DNS subdomain (RFC 1123), the first label of which may be `*`.
fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.len() <= 63
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn ingress(name: &str, host: &str, path: &str, kind: &str) -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name, "namespace": "n",
                "annotations": {"nginx.ingress.kubernetes.io/rewrite-target": "/"}},
            "spec": {"rules": [{"host": host, "http": {"paths": [
                {"path": path, "pathType": kind, "backend": {"service": {"name": "s",
                    "port": {"number": 1}}}}]}}]}})
    }

    fn answer(object: &Value) -> Value {
        let known = serde_json::from_value(ingress("first", "a.local", "/", "Prefix")).unwrap();
        let objects = Objects { ingresses: vec![Arc::new(known)], ..Objects::default() };
        let review = json!({"request": {"uid": "u", "kind": {"kind": "Ingress"}, "namespace": "n",
            "operation": "CREATE", "object": object}});
        let answer = review_of(&review, &objects);
        assert_eq!(answer["response"]["uid"], "u");
        answer["response"].clone()
    }

    fn review_of(review: &Value, objects: &Objects) -> Value {
        super::review(review.to_string().as_bytes(), objects, "k8s.io/ingress-nginx").unwrap()
    }

    #[test]
    fn a_path_that_another_ingress_has_is_denied() {
        let denied = answer(&ingress("second", "a.local", "/", "Prefix"));
        assert_eq!(denied["allowed"], false);
        assert_eq!(
            denied["status"]["message"],
            "host \"a.local\" and path \"/\" is already defined in ingress n/first"
        );
        assert_eq!(
            answer(&ingress("first", "a.local", "/", "Prefix"))["allowed"],
            true,
            "an update of itself"
        );
        assert_eq!(answer(&ingress("second", "a.local", "/b", "Prefix"))["allowed"], true);
    }

    #[test]
    fn bad_hosts_paths_and_types_are_denied() {
        for (host, path, kind) in
            [("a_b", "/", "Prefix"), ("a.*.b", "/", "Prefix"), ("ok", "x", "Exact"), ("ok", "/", "Regex")]
        {
            assert_eq!(
                answer(&ingress("second", host, path, kind))["allowed"],
                false,
                "{host} {path} {kind}"
            );
        }
        for host in ["", "*.a.local", "xn--a.local", "127.0.0.1.nip.io"] {
            assert_eq!(answer(&ingress("second", host, "/", "Prefix"))["allowed"], true, "{host}");
        }
    }

    #[test]
    fn what_has_no_effect_is_named_and_what_is_unreadable_refused() {
        let warned = answer(&ingress("second", "b.local", "/", "Prefix"));
        let warning = "annotation nginx.ingress.kubernetes.io/rewrite-target has no effect in the sandbox";
        assert_eq!(warned["warnings"], json!([warning]));
        assert!(super::review(b"{}", &Objects::default(), "x").is_err());
        assert!(super::review(b"no json", &Objects::default(), "x").is_err());
    }
}
