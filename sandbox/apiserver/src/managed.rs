//! managedFields: who set which field.

use serde_json::{Value, json};

use crate::fields::{self, FieldPath, FieldSet};
use crate::kinds::Kind;
use crate::time;

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) manager: String,
    /// `Apply` or `Update`.
    pub(crate) operation: String,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
    pub(crate) time: String,
    pub(crate) fields: FieldSet,
}

impl Entry {
    pub(crate) fn is(&self, manager: &str, operation: &str, subresource: Option<&str>) -> bool {
        self.manager == manager
            && self.operation == operation
            && self.subresource == subresource.unwrap_or_default()
    }

    /// `"kubectl-edit" using apps/v1`, or `"kubectl"` where it has applied, as conflicts name it.
    pub(crate) fn show(&self) -> String {
        let subresource = match self.subresource.as_str() {
            "" => String::new(),
            name => format!(" with subresource \"{name}\""),
        };
        let version =
            if self.operation == "Apply" { String::new() } else { format!(" using {}", self.api_version) };
        format!("\"{}\"{subresource}{version}", self.manager)
    }
}

/// The entries of an object.
pub(crate) fn read(object: &Value) -> Vec<Entry> {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry.get("fieldsV1").is_some())
        .map(|entry| Entry {
            manager: text(entry, "manager"),
            operation: text(entry, "operation"),
            api_version: text(entry, "apiVersion"),
            subresource: text(entry, "subresource"),
            time: text(entry, "time"),
            fields: fields::from_json(&entry["fieldsV1"]),
        })
        .collect()
}

/// Writes entries into an object, the empty ones left out, in Kubernetes' order.
pub(crate) fn write(object: &mut Value, entries: &[Entry]) {
    let mut sorted: Vec<&Entry> = entries.iter().filter(|entry| !entry.fields.is_empty()).collect();
    sorted.sort_by_key(|entry| {
        (&entry.operation, &entry.time, &entry.manager, &entry.api_version, &entry.subresource)
    });
    let list: Vec<Value> = sorted
        .into_iter()
        .map(|entry| {
            let mut value = json!({
                "manager": entry.manager, "operation": entry.operation, "apiVersion": entry.api_version,
                "fieldsType": "FieldsV1", "fieldsV1": fields::to_json(&entry.fields),
            });
            if !entry.time.is_empty() {
                value["time"] = json!(entry.time);
            }
            if !entry.subresource.is_empty() {
                value["subresource"] = json!(entry.subresource);
            }
            value
        })
        .collect();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        if list.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), Value::Array(list));
        }
    }
}

/// Takes the times out, so that two lists can be compared.
pub(crate) fn drop_times(list: &mut Value) {
    for entry in list.as_array_mut().into_iter().flatten() {
        if let Some(fields) = entry.as_object_mut() {
            fields.remove("time");
        }
    }
}

/// Records an ordinary write: what it changed is now the writer's, and nobody else's; what it removed is nobody's.
pub(crate) fn track(
    kind: &Kind,
    old: Option<&Value>,
    new: &mut Value,
    subresource: Option<&str>,
    manager: &str,
) {
    if subresource == Some("binding") {
        // What the scheduler decides belongs to nobody.
        return;
    }
    let given = new["metadata"].get("managedFields").filter(|list| !list.is_null());
    // Without the list, a write leaves ownership as it was; an empty list resets it.
    let mut entries = match (given, old) {
        (Some(_), Some(_)) => read(new),
        (None, Some(old)) => read(old),
        (_, None) => Vec::new(),
    };
    if old.is_some() && entries.is_empty() {
        // What nobody has applied to, and whose list was taken away, is not tracked.
        write(new, &entries);
        return;
    }
    let status = subresource == Some("status");
    let after = fields::with_parents(kind, new, status);
    let before = old.map(|old| fields::with_parents(kind, old, status)).unwrap_or_default();
    let empty = json!({});
    let old_object = old.unwrap_or(&empty);
    // Of a list's item, and of what has fields of its own, the presence is owned and not the value.
    let has_fields = |path: &FieldPath| {
        is_item(path) || after.range(path.clone()..).nth(1).is_some_and(|next| next.starts_with(path))
    };
    let changed: FieldSet = after
        .iter()
        .filter(|path| {
            !before.contains(*path)
                || !has_fields(path) && fields::get(old_object, path) != fields::get(new, path)
        })
        .cloned()
        .collect();
    let gone: FieldSet = before.difference(&after).cloned().collect();
    if changed.is_empty() && gone.is_empty() {
        write(new, &entries);
        return;
    }
    for entry in &mut entries {
        entry.fields.retain(|path| !gone.contains(path) && (!changed.contains(path) || has_fields(path)));
    }
    if !changed.is_empty() {
        let (position, now) =
            (entries.iter().position(|e| e.is(manager, "Update", subresource)), written_at(subresource));
        let index = position.unwrap_or(entries.len());
        if position.is_none() {
            entries.push(Entry {
                manager: manager.to_owned(),
                operation: "Update".to_owned(),
                api_version: kind.api_version(),
                subresource: subresource.unwrap_or_default().to_owned(),
                time: now.clone(),
                fields: FieldSet::new(),
            });
        }
        entries[index].fields.extend(changed);
        entries[index].time = now;
    }
    write(new, &entries);
}

/// The owner of all that is there when something is applied for the first time to an object without owners.
pub(crate) fn before_first_apply(kind: &Kind, live: &Value) -> Option<Entry> {
    let fields = fields::with_parents(kind, live, false);
    (!fields.is_empty()).then(|| Entry {
        manager: "before-first-apply".to_owned(),
        operation: "Update".to_owned(),
        api_version: kind.api_version(),
        subresource: String::new(),
        time: time::now(),
        fields,
    })
}

/// When a write through this subresource is recorded: a scale has no time, in Kubernetes either.
pub(crate) fn written_at(subresource: Option<&str>) -> String {
    if subresource == Some("scale") { String::new() } else { time::now() }
}

/// Does the path end at a list item (whose presence, not value, is owned)?
pub(crate) fn is_item(path: &[String]) -> bool {
    path.last().is_some_and(|step| step.starts_with("k:"))
}
