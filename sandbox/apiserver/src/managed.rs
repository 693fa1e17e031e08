//! managedFields: who set which field.

use serde_json::{Value, json};

use crate::fields::FieldSet;
use crate::kind::Kind;
use crate::time;
use crate::typed::{self, Half};

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
    /// An entry of now, without fields as yet.
    pub(crate) fn new(kind: &Kind, subresource: Option<&str>, manager: &str, operation: &str) -> Entry {
        Entry {
            manager: manager.to_owned(),
            operation: operation.to_owned(),
            api_version: kind.api_version(),
            subresource: subresource.unwrap_or_default().to_owned(),
            time: written_at(subresource),
            fields: FieldSet::default(),
        }
    }

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
            fields: FieldSet::from_json(&entry["fieldsV1"]),
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
                "fieldsType": "FieldsV1", "fieldsV1": entry.fields.to_json(),
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
    let compared = typed::compare(kind, old, new, Half::of(subresource));
    if !compared.is_empty() {
        let changed = compared.changed();
        for entry in &mut entries {
            entry.fields.subtract(&compared.removed);
            if !entry.is(manager, "Update", subresource) {
                entry.fields.subtract(&changed);
            }
        }
        if !changed.is_empty() {
            let entry = match entries.iter().position(|entry| entry.is(manager, "Update", subresource)) {
                Some(index) => &mut entries[index],
                None => {
                    entries.push(Entry::new(kind, subresource, manager, "Update"));
                    let last = entries.len() - 1;
                    &mut entries[last]
                }
            };
            entry.fields.add(changed);
            entry.time = written_at(subresource);
        }
    }
    write(new, &entries);
}

/// The owner of all that is there when something is applied for the first time to an object without owners.
pub(crate) fn before_first_apply(kind: &Kind, live: &Value) -> Option<Entry> {
    let fields = typed::compare(kind, None, live, Half::Spec).changed();
    let entry = Entry::new(kind, None, "before-first-apply", "Update");
    (!fields.is_empty()).then_some(Entry { fields, ..entry })
}

/// When a write through this subresource is recorded: a scale has no time, in Kubernetes either.
pub(crate) fn written_at(subresource: Option<&str>) -> String {
    if subresource == Some("scale") { String::new() } else { time::now() }
}
