//! The life of namespaces: the first ones, and the end of one with all that is in it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kinds::{KINDS, Storage};
use crate::rest::delete::{self, DeleteOptions};
use crate::server::{Api, namespace_kind};
use crate::status::ApiError;
use crate::store::{Store, meta};
use crate::{kinds::Kind, time};

/// `default`, `kube-system`, `kube-public`, `kube-node-lease`.
pub(crate) fn create_initial(store: &Store) {
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": name, "uid": uuid::Uuid::new_v4().to_string(), "creationTimestamp": time::now(),
                "labels": {"kubernetes.io/metadata.name": name},
            },
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        // An empty store has no such name yet.
        let _ = store.create(namespace_kind(), object);
    }
}

/// Refuses a new object in a namespace that does not exist or is going.
pub(crate) fn admit(store: &Store, kind: &Kind, namespace: &str, name: &str) -> Result<(), ApiError> {
    let Some(found) = store.get(namespace_kind(), "", namespace) else {
        return Err(ApiError::not_found(namespace_kind(), namespace));
    };
    if found["metadata"].get("deletionTimestamp").is_some() {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error = ApiError::forbidden(kind, name, &why);
        if let Some(details) = &mut error.details {
            details["causes"] = json!([{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"),
                "field": "metadata.namespace",
            }]);
        }
        return Err(error);
    }
    Ok(())
}

/// Empties a terminating namespace, waits until the last pod is gone, then removes it.
pub(crate) fn finish_later(api: &Arc<Api>, name: String) {
    let api = api.clone();
    let closing = api.closing();
    tokio::spawn(async move { closing.run_until_cancelled_owned(finish(&api, &name)).await });
}

async fn finish(api: &Arc<Api>, name: &str) {
    let mut changed = api.store.subscribe_any();
    loop {
        changed.mark_unchanged();
        let left = delete_contents(api, name);
        if left == 0 {
            let Some(namespace) = api.store.get(namespace_kind(), "", name) else { return };
            let mut last = (*namespace).clone();
            last["spec"]["finalizers"] = json!([]);
            if !has_finalizers(&last) && api.store.remove(namespace_kind(), last, &namespace).is_ok() {
                return;
            }
        }
        // Also woken now and then, so that a change missed by a race cannot hold it for ever.
        let _ = tokio::time::timeout(Duration::from_secs(1), changed.changed()).await;
    }
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

/// Asks for the deletion of everything in the namespace; returns how many objects are still there.
fn delete_contents(api: &Arc<Api>, name: &str) -> usize {
    let options = DeleteOptions::default();
    let mut left = 0;
    for kind in KINDS.iter().filter(|kind| kind.namespaced && kind.storage == Storage::Own) {
        for object in api.store.list(kind, Some(name)).0 {
            let name_of = meta(&object, "name");
            if object["metadata"].get("deletionTimestamp").is_none() {
                // Whatever stands in the way of one object, the next round tries it again.
                let _ = delete::delete_object(api, kind, name, name_of, &options);
            }
            left += usize::from(api.store.get(kind, name, name_of).is_some());
        }
    }
    left
}
