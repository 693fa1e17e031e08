//! delete and deletecollection: grace for pods, finalizers, orphans.

use std::sync::Arc;

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use super::{Call, read_json};
use crate::kinds::{KINDS, Kind, Storage};
use crate::server::Api;
use crate::status::{ApiError, json_response};
use crate::store::{Object, Refused, meta};
use crate::{namespaces, time, views};

/// Kubernetes' `DeleteOptions`, as far as they matter here.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    grace_seconds: Option<i64>,
    orphan: bool,
    uid: Option<String>,
    version: Option<String>,
    dry_run: bool,
}

/// What a delete led to.
enum Outcome {
    /// It is marked and will go later.
    Going(Object),
    /// It is gone.
    Gone(Object),
}

impl DeleteOptions {
    /// From the body, else the query.
    pub(crate) fn read(call: &Call<'_>, body: &[u8]) -> Result<DeleteOptions, ApiError> {
        let given = if body.is_empty() { json!({}) } else { read_json(body)? };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let policy = text(&given["propagationPolicy"])
            .or_else(|| call.query.get("propagationPolicy").map(str::to_owned))
            .unwrap_or_default();
        Ok(DeleteOptions {
            grace_seconds: given["gracePeriodSeconds"]
                .as_i64()
                .or(call.query.number("gracePeriodSeconds")?),
            orphan: policy == "Orphan"
                || given["orphanDependents"] == true
                || call.query.flag("orphanDependents"),
            uid: text(&given["preconditions"]["uid"]),
            version: text(&given["preconditions"]["resourceVersion"]),
            dry_run: call.query.dry_run()? || given["dryRun"].as_array().is_some_and(|list| !list.is_empty()),
        })
    }

    pub(crate) fn with_grace(mut self, seconds: Option<i64>) -> DeleteOptions {
        self.grace_seconds = seconds.or(self.grace_seconds);
        self
    }
}

/// An object marked for deletion that nothing holds back any longer.
pub(crate) fn is_released(kind: &Kind, object: &Value) -> bool {
    let metadata = &object["metadata"];
    metadata.get("deletionTimestamp").is_some()
        && no_finalizers(object)
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && (!kind.is("", "namespaces") || object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty))
}

fn no_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
}

pub(crate) fn delete(call: &Call<'_>, name: &str, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = DeleteOptions::read(call, body)?;
    match remove(call.api, call.kind, call.namespace, name, &options)? {
        Outcome::Going(object) => Ok(call.respond(200, &object, &[])),
        Outcome::Gone(object) if call.kind.is("", "pods") => Ok(call.respond(200, &object, &[])),
        Outcome::Gone(object) => {
            let mut details =
                json!({"name": name, "kind": call.kind.plural, "uid": object["metadata"]["uid"]});
            if !call.kind.group.is_empty() {
                details["group"] = json!(call.kind.group);
            }
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            Ok(json_response(200, &status))
        }
    }
}

pub(crate) fn delete_collection(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = DeleteOptions::read(call, body)?;
    let selector = call.query.selector()?;
    let namespace = (!call.namespace.is_empty()).then_some(call.namespace);
    let (objects, version) = call.api.store.list(call.kind.stored(), namespace);
    let mut deleted = Vec::new();
    for object in objects.iter().filter(|object| selector.matches(object)) {
        match remove(call.api, call.kind, meta(object, "namespace"), meta(object, "name"), &options) {
            Ok(Outcome::Going(object) | Outcome::Gone(object)) => {
                deleted.push(views::show(call.kind, &object));
            }
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let list = json!({
        "kind": format!("{}List", call.kind.kind), "apiVersion": call.kind.api_version(),
        "metadata": {"resourceVersion": version.to_string()}, "items": deleted,
    });
    Ok(json_response(200, &list))
}

/// Deletes one object, as `delete` does.
pub(crate) fn delete_object(
    api: &Arc<Api>,
    kind: &'static Kind,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    remove(api, kind, namespace, name, options).map(drop)
}

fn remove(
    api: &Arc<Api>,
    kind: &'static Kind,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Outcome, ApiError> {
    let stored = kind.stored();
    loop {
        let old = api.store.get(stored, namespace, name).ok_or_else(|| ApiError::not_found(kind, name))?;
        check_preconditions(kind, name, &old, options)?;
        if stored.is("", "namespaces")
            && ["default", "kube-system", "kube-public", "kube-node-lease"].contains(&name)
        {
            return Err(ApiError::forbidden(kind, name, "this namespace may not be deleted"));
        }
        if options.orphan && !options.dry_run {
            orphan(api, meta(&old, "uid"));
        }
        let marked = mark(stored, &old, options);
        let released = is_released(stored, &marked);
        if options.dry_run {
            return Ok(if released { Outcome::Gone(old) } else { Outcome::Going(Object::new(marked)) });
        }
        let written = if released {
            api.store.remove(stored, marked, &old).map(Outcome::Gone)
        } else if marked == *old {
            Ok(Outcome::Going(old.clone()))
        } else {
            api.store.replace(stored, marked, &old).map(Outcome::Going)
        };
        match written {
            Ok(outcome) => {
                if stored.is("", "namespaces") && matches!(outcome, Outcome::Going(_)) {
                    namespaces::finish_later(api, name.to_owned());
                }
                return Ok(outcome);
            }
            Err(Refused::Modified | Refused::Exists) => {}
            Err(Refused::NotFound) => return Err(ApiError::not_found(kind, name)),
        }
    }
}

fn check_preconditions(
    kind: &Kind,
    name: &str,
    old: &Value,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    for (what, wanted, field) in
        [("UID", &options.uid, "uid"), ("ResourceVersion", &options.version, "resourceVersion")]
    {
        let found = meta(old, field);
        if let Some(wanted) = wanted
            && wanted != found
        {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). \
                 The object might have been deleted and then recreated"
            );
            return Err(ApiError::conflict(kind, name, &why));
        }
    }
    Ok(())
}

/// The object with the marks of deletion on it.
fn mark(kind: &Kind, old: &Value, options: &DeleteOptions) -> Value {
    let mut object = old.clone();
    let grace = if kind.is("", "pods") { pod_grace(old, options.grace_seconds) } else { 0 };
    let already = old["metadata"].get("deletionTimestamp").is_some();
    let previous = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if already && grace >= previous {
        return object;
    }
    object["metadata"]["deletionTimestamp"] = json!(time::in_seconds(grace));
    object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    if let Some(generation) = old["metadata"]["generation"].as_i64() {
        object["metadata"]["generation"] = json!(generation + 1);
    }
    if kind.is("", "namespaces") {
        object["status"]["phase"] = json!("Terminating");
    }
    object
}

/// A pod gets its grace unless it never ran or has ended.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if ended || pod["spec"]["nodeName"].as_str().unwrap_or("").is_empty() {
        return 0;
    }
    asked.or(pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30).max(0)
}

/// Cuts the dependents of an object loose, so that garbage collection lets them live.
fn orphan(api: &Arc<Api>, uid: &str) {
    for kind in KINDS.iter().filter(|kind| kind.storage == Storage::Own) {
        for object in api.store.list(kind, None).0 {
            let mut current = object;
            while let Some(owners) = current["metadata"]["ownerReferences"].as_array() {
                if owners.iter().all(|owner| owner["uid"] != uid) {
                    break;
                }
                let left: Vec<Value> = owners.iter().filter(|owner| owner["uid"] != uid).cloned().collect();
                let mut loose = (*current).clone();
                if let Some(metadata) = loose["metadata"].as_object_mut() {
                    if left.is_empty() {
                        metadata.remove("ownerReferences");
                    } else {
                        metadata.insert("ownerReferences".to_owned(), Value::Array(left));
                    }
                }
                match api.store.replace(kind, loose, &current) {
                    Err(Refused::Modified) => {
                        let (namespace, name) = (meta(&current, "namespace"), meta(&current, "name"));
                        let Some(newer) = api.store.get(kind, namespace, name) else { break };
                        current = newer;
                    }
                    Ok(_) | Err(Refused::NotFound | Refused::Exists) => break,
                }
            }
        }
    }
}
