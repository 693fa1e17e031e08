//! The first namespaces, and what a namespace lets in.

use serde_json::json;

use crate::kind::Kind;
use crate::kinds;
use crate::status::ApiError;
use crate::store::Store;
use crate::time;

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
        let _ = store.create(kinds::namespace(), object);
    }
}

/// Refuses a new object in a namespace that does not exist or is going.
pub(crate) fn admit(store: &Store, kind: &Kind, namespace: &str, name: &str) -> Result<(), ApiError> {
    let Some(found) = store.get(kinds::namespace(), "", namespace) else {
        return Err(ApiError::not_found(kinds::namespace(), namespace));
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
