//! Pod templates: equality, the hash that names a ReplicaSet, and revision numbers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::{HASH_LABEL, REVISION};

/// Whether two templates ask for the same pods. The hash label and fields that hold nothing make no difference.
pub(super) fn equal(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    canonical(a) == canonical(b)
}

/// The hash that goes into the ReplicaSet's name and labels: FNV-1a over the template, written in the alphabet that
/// Kubernetes uses for generated names.
pub(super) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut text = canonical(template).to_string();
    if let Some(collisions) = collisions {
        text.push_str(&collisions.to_string());
    }
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// The revision number in the annotations, 0 without one.
pub(super) fn revision(annotations: &BTreeMap<String, String>) -> i64 {
    annotations.get(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or_default()
}

fn canonical(template: &PodTemplateSpec) -> Value {
    // A template is plain data: it always serialises.
    let mut value = serde_json::to_value(template).unwrap_or_default();
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    prune(&mut value);
    value
}

/// Takes out what holds nothing; true when `value` itself does.
fn prune(value: &mut Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => {
            fields.retain(|key, field| {
                let empty = prune(field);
                // `emptyDir: {}` means something by being there.
                !empty || (field.is_object() && key == "emptyDir")
            });
            fields.is_empty()
        }
        Value::Array(items) => {
            for item in items.iter_mut() {
                prune(item);
            }
            items.is_empty()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(json: Value) -> PodTemplateSpec {
        serde_json::from_value(json).expect("template")
    }

    #[test]
    fn the_hash_label_and_empty_fields_make_no_difference() {
        let bare = template(serde_json::json!({"metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c"}]}}));
        let stored = template(serde_json::json!({
            "metadata": {"labels": {"app": "x", "pod-template-hash": "abc"}, "annotations": {}},
            "spec": {"containers": [{"name": "c", "env": []}]},
        }));
        let other = template(serde_json::json!({"metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "d"}]}}));
        assert!(equal(&bare, &stored));
        assert!(!equal(&bare, &other));
        assert_eq!(hash(&bare, None), hash(&stored, None));
        assert_ne!(hash(&bare, None), hash(&other, None));
        assert_ne!(hash(&bare, None), hash(&bare, Some(1)));
    }
}
