//! delete and deletecollection: grace for pods, finalizers, orphans.

mod namespace;

use std::sync::Arc;

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use super::list;
use crate::call::Call;
use crate::causes::Cause;
use crate::kind::{Kind, Storage};
use crate::kinds::KINDS;
use crate::meta::meta;
use crate::state::Api;
use crate::status::{ApiError, json_response};
use crate::store::{Object, Refused};
use crate::time;

/// Kubernetes' `DeleteOptions`, as far as they matter here.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    grace_seconds: Option<i64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    version: Option<String>,
    dry_run: bool,
}

/// What becomes of an object's dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Propagation {
    /// They go after it.
    Background,
    /// It goes after them.
    Foreground,
    /// They stay.
    Orphan,
}

impl Propagation {
    /// The finalizer that holds the object until the garbage collector has done its part.
    fn finalizer(self) -> Option<&'static str> {
        match self {
            Propagation::Background => None,
            Propagation::Foreground => Some("foregroundDeletion"),
            Propagation::Orphan => Some("orphan"),
        }
    }
}

/// Kinds whose deletion is answered with the object itself.
const ANSWERED_WITH_OBJECT: [&str; 3] = ["pods", "serviceaccounts", "services"];

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
        let given = if body.is_empty() { json!({}) } else { call.read_any(body)? };
        DeleteOptions::from(call, &given)
    }

    pub(crate) fn from(call: &Call<'_>, given: &Value) -> Result<DeleteOptions, ApiError> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut causes = Vec::new();
        let field = "propagationPolicy";
        let policy = text(&given[field]).or_else(|| call.query.get(field).map(str::to_owned));
        let orphan = given["orphanDependents"]
            .as_bool()
            .or_else(|| call.query.has("orphanDependents").then(|| call.query.flag("orphanDependents")));
        if let (Some(policy), Some(_)) = (&policy, orphan) {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            causes.push(Cause::invalid(field, &json!(policy), why));
        }
        let propagation = match policy.as_deref() {
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Background") => Some(Propagation::Background),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                causes.push(Cause::not_supported(field, &json!(other), &supported));
                None
            }
            None => orphan.map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background }),
        };
        let dry_run = call.query.dry_run().unwrap_or_else(|cause| {
            causes.push(cause);
            true
        });
        if !causes.is_empty() {
            return Err(ApiError::invalid_options("DeleteOptions", &causes));
        }
        Ok(DeleteOptions {
            grace_seconds: given["gracePeriodSeconds"]
                .as_i64()
                .or(call.query.number("gracePeriodSeconds")?),
            propagation,
            uid: text(&given["preconditions"]["uid"]),
            version: text(&given["preconditions"]["resourceVersion"]),
            dry_run: dry_run || given["dryRun"].as_array().is_some_and(|list| !list.is_empty()),
        })
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
        Outcome::Gone(object) if ANSWERED_WITH_OBJECT.contains(&call.kind.plural) => {
            Ok(call.respond(200, &object, &[]))
        }
        Outcome::Gone(object) => {
            let mut details =
                json!({"name": name, "kind": call.kind.plural, "uid": object["metadata"]["uid"]});
            if !call.kind.group.is_empty() {
                details["group"] = json!(call.kind.group);
            }
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": details});
            Ok(json_response(200, &status))
        }
    }
}

pub(crate) fn delete_collection(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = DeleteOptions::read(call, body)?;
    let selector = call.query.selector(call.kind)?;
    let namespace = (!call.namespace.is_empty()).then_some(call.namespace);
    let (objects, version) = call.api.store.list(call.kind.stored(), namespace);
    let mut deleted = Vec::new();
    for object in objects.iter().filter(|object| selector.matches(object)) {
        match remove(call.api, call.kind, meta(object, "namespace"), meta(object, "name"), &options) {
            // The answer lists what was found, not what became of it.
            Ok(_) => deleted.push(object.clone()),
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let metadata = json!({"resourceVersion": version.to_string()});
    list::respond(call, deleted, metadata)
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
        if options.propagation == Some(Propagation::Orphan) && !stored.collected && !options.dry_run {
            orphan(api, meta(&old, "uid"));
        }
        let marked = mark(stored, &old, options);
        let released = is_released(stored, &marked);
        if options.dry_run {
            return Ok(if released { Outcome::Gone(old) } else { Outcome::Going(Object::new(marked)) });
        }
        let written = if released {
            // What goes at once goes unmarked.
            let last = if stored.is("", "pods") { marked } else { (*old).clone() };
            api.store.remove(stored, last, &old).map(Outcome::Gone)
        } else if marked == *old {
            Ok(Outcome::Going(old.clone()))
        } else {
            api.store.replace(stored, marked, &old).map(Outcome::Going)
        };
        match written {
            Ok(outcome) => {
                if stored.is("", "namespaces") && matches!(outcome, Outcome::Going(_)) {
                    namespace::finish_later(api, name.to_owned());
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
    for (what, wanted, field, meaning) in [
        ("UID", &options.uid, "uid", "deleted and then recreated"),
        ("ResourceVersion", &options.version, "resourceVersion", "modified"),
    ] {
        let found = meta(old, field);
        if let Some(wanted) = wanted
            && wanted != found
        {
            let qualified = kind.qualified();
            let message = format!(
                "Operation cannot be fulfilled on {qualified} \"{name}\": the {what} in the precondition \
                 ({wanted}) \
                 does not match the {what} in record ({found}). The object might have been {meaning}"
            );
            let mut error = ApiError::new(409, "Conflict", message).on(kind, name);
            if let Some(details) = &mut error.details {
                details["kind"] = json!(kind.kind);
            }
            return Err(error);
        }
    }
    Ok(())
}

/// The object with the marks of deletion on it.
fn mark(kind: &Kind, old: &Value, options: &DeleteOptions) -> Value {
    let mut object = old.clone();
    let grace = (kind.does.grace)(old, options.grace_seconds);
    let already = old["metadata"].get("deletionTimestamp").is_some();
    let previous = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if let Some(propagation) = options.propagation.filter(|_| kind.collected) {
        let all = [Propagation::Foreground, Propagation::Orphan].map(|policy| json!(policy.finalizer()));
        let mut finalizers = old["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        finalizers.retain(|finalizer| !all.contains(finalizer));
        finalizers.extend(propagation.finalizer().map(Value::from));
        if let Some(metadata) = object["metadata"].as_object_mut() {
            if finalizers.is_empty() {
                metadata.remove("finalizers");
            } else {
                metadata.insert("finalizers".to_owned(), Value::Array(finalizers));
            }
        }
    }
    if already && grace >= previous {
        return object;
    }
    object["metadata"]["deletionTimestamp"] = json!(time::in_seconds(grace));
    if !kind.is("", "namespaces") {
        object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    }
    if let Some(generation) = old["metadata"]["generation"].as_i64().filter(|_| !already) {
        object["metadata"]["generation"] = json!(generation + 1);
    }
    if kind.is("", "namespaces") {
        object["status"]["phase"] = json!("Terminating");
    }
    object
}

/// Cuts the dependents of an object loose, so that garbage collection lets them live. For kinds that no controller
/// makes dependents of: there a new one could come in between.
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
