//! The end of a namespace, with all that is in it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{DeleteOptions, delete_object};
use crate::kind::Storage;
use crate::kinds::{self, KINDS};
use crate::meta::meta;
use crate::state::Api;

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
            let Some(namespace) = api.store.get(kinds::namespace(), "", name) else { return };
            let mut last = (*namespace).clone();
            last["spec"]["finalizers"] = json!([]);
            if !has_finalizers(&last) && api.store.remove(kinds::namespace(), last, &namespace).is_ok() {
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
                let _ = delete_object(api, kind, name, name_of, &options);
            }
            left += usize::from(api.store.get(kind, name, name_of).is_some());
        }
    }
    left
}
