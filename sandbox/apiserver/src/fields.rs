//! Sets of fields, as `fieldsV1` in managedFields writes them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::presence;
use crate::schema::{self, Merge, Path};

/// The way to one field: `f:spec`, `k:{"name":"x"}`, `v:"value"`.
pub(crate) type FieldPath = Vec<String>;

/// A set of fields.
pub(crate) type FieldSet = BTreeSet<FieldPath>;

/// Metadata nobody owns.
const UNOWNED: [&str; 9] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
];

/// The fields that an object sets, as an applied configuration owns them. `status` decides whether that is its status
/// or everything else.
pub(crate) fn of(kind: &Kind, object: &Value, status: bool) -> FieldSet {
    let mut walk = Walk { kind, with_parents: false, set: FieldSet::new() };
    walk.object(object, status);
    walk.set
}

/// As [`of`], and the maps and lists that these fields are in: whoever adds one by an ordinary write owns it too.
pub(crate) fn with_parents(kind: &Kind, object: &Value, status: bool) -> FieldSet {
    let mut walk = Walk { kind, with_parents: true, set: FieldSet::new() };
    walk.object(object, status);
    walk.set
}

struct Walk<'k> {
    kind: &'k Kind,
    with_parents: bool,
    set: FieldSet,
}

impl Walk<'_> {
    fn object(&mut self, object: &Value, status: bool) {
        for (field, value) in object.as_object().into_iter().flatten() {
            let counts = match field.as_str() {
                "apiVersion" | "kind" => false,
                "status" => status,
                "metadata" => true,
                _ => !status,
            };
            if counts {
                let mut path = Path::default();
                path.push(field);
                self.value(value, &mut path, &mut vec![format!("f:{field}")]);
            }
        }
    }

    fn value(&mut self, value: &Value, schema_path: &mut Path, at: &mut FieldPath) {
        let kind = self.kind;
        match value {
            Value::Object(fields) if !fields.is_empty() && schema::map(schema_path) != Merge::Atomic => {
                self.parent(schema_path, at);
                for (field, value) in fields {
                    if at.len() == 1 && at[0] == "f:metadata" && UNOWNED.contains(&field.as_str()) {
                        continue;
                    }
                    schema_path.push(field);
                    at.push(format!("f:{field}"));
                    self.value(value, schema_path, at);
                    at.pop();
                    schema_path.pop();
                }
            }
            Value::Array(items) if !items.is_empty() => match schema::list(kind, schema_path) {
                Merge::Keyed(keys) => {
                    self.parent(schema_path, at);
                    for item in items {
                        at.push(item_key(item, keys));
                        self.set.insert(at.clone());
                        self.value(item, schema_path, at);
                        at.pop();
                    }
                }
                Merge::Set => {
                    self.parent(schema_path, at);
                    for item in items {
                        at.push(format!("v:{item}"));
                        self.set.insert(at.clone());
                        at.pop();
                    }
                }
                Merge::Atomic | Merge::Granular => {
                    self.set.insert(at.clone());
                }
            },
            _ => {
                let unset = self.with_parents && presence::is_unset(kind, schema_path, value);
                if !unset && (at.len() > 1 || at[0] != "f:metadata") {
                    self.set.insert(at.clone());
                }
            }
        }
    }

    /// Notes a map or list that holds others' fields; an item of a list is noted where it is found.
    fn parent(&mut self, schema_path: &Path, at: &FieldPath) {
        let is_item = at.last().is_some_and(|step| step.starts_with("k:"));
        if self.with_parents && !is_item && !presence::always_there(self.kind, schema_path) {
            self.set.insert(at.clone());
        }
    }
}

/// `k:{"containerPort":8000,"protocol":"TCP"}`.
pub(crate) fn item_key(item: &Value, keys: &[&str]) -> String {
    let mut fields = Map::new();
    for key in keys {
        let value = match item.get(*key) {
            Some(value) if !value.is_null() => value.clone(),
            _ => schema::key_default(key).map_or(Value::Null, Value::from),
        };
        fields.insert((*key).to_owned(), value);
    }
    format!("k:{}", Value::Object(fields))
}

/// Does this list item have this key?
fn has_key(item: &Value, key: &str) -> bool {
    let Ok(Value::Object(wanted)) = serde_json::from_str::<Value>(key) else { return false };
    wanted.iter().all(|(field, value)| match item.get(field) {
        Some(found) => found == value,
        None => schema::key_default(field).is_some_and(|default| value == default),
    })
}

fn has_value(item: &Value, value: &str) -> bool {
    serde_json::from_str::<Value>(value).is_ok_and(|value| *item == value)
}

/// The value at a path.
pub(crate) fn get<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| match step.split_at_checked(2)? {
        ("f:", field) => value.get(field),
        ("k:", key) => value.as_array()?.iter().find(|item| has_key(item, key)),
        ("v:", wanted) => value.as_array()?.iter().find(|item| has_value(item, wanted)),
        _ => None,
    })
}

/// Takes the field at a path away, and then what contained it if that is empty.
pub(crate) fn remove(object: &mut Value, path: &[String], keep_empty: &dyn Fn(&[String]) -> bool) {
    remove_at(object, path, 0, keep_empty);
}

fn remove_at(value: &mut Value, path: &[String], depth: usize, keep_empty: &dyn Fn(&[String]) -> bool) {
    let Some((prefix, rest)) = path.get(depth).and_then(|step| step.split_at_checked(2)) else { return };
    let last = depth + 1 == path.len();
    match (prefix, value) {
        ("f:", Value::Object(fields)) => {
            if last {
                fields.remove(rest);
            } else if let Some(inner) = fields.get_mut(rest) {
                remove_at(inner, path, depth + 1, keep_empty);
                let empty = inner.as_object().is_some_and(Map::is_empty)
                    || inner.as_array().is_some_and(Vec::is_empty);
                if empty && !keep_empty(&path[..=depth]) {
                    fields.remove(rest);
                }
            }
        }
        ("k:", Value::Array(items)) => {
            if last {
                items.retain(|item| !has_key(item, rest));
            } else if let Some(inner) = items.iter_mut().find(|item| has_key(item, rest)) {
                remove_at(inner, path, depth + 1, keep_empty);
            }
        }
        ("v:", Value::Array(items)) if last => items.retain(|item| !has_value(item, rest)),
        _ => {}
    }
}

/// As `fieldsV1`.
pub(crate) fn to_json(set: &FieldSet) -> Value {
    let mut root = json!({});
    for path in set {
        let mut node = &mut root;
        for step in path {
            node = &mut node[step.as_str()];
            if node.is_null() {
                *node = json!({});
            }
        }
        if let Some(fields) = node.as_object_mut() {
            fields.insert(".".to_owned(), json!({}));
        }
    }
    simplify(&mut root);
    root
}

/// A member without children is `{}`, not `{".":{}}`.
fn simplify(node: &mut Value) {
    if let Some(fields) = node.as_object_mut() {
        if fields.len() == 1 && fields.contains_key(".") {
            fields.clear();
        }
        fields.values_mut().for_each(simplify);
    }
}

/// From `fieldsV1`.
pub(crate) fn from_json(value: &Value) -> FieldSet {
    let mut set = FieldSet::new();
    collect(value, &mut Vec::new(), &mut set);
    set
}

fn collect(value: &Value, at: &mut FieldPath, set: &mut FieldSet) {
    let Some(fields) = value.as_object() else { return };
    if (fields.is_empty() || fields.contains_key(".")) && !at.is_empty() {
        set.insert(at.clone());
    }
    for (step, inner) in fields.iter().filter(|(step, _)| *step != ".") {
        at.push(step.clone());
        collect(inner, at, set);
        at.pop();
    }
}

/// A path as errors show it: `.spec.template.spec.containers[name="app"].image`.
pub(crate) fn show(path: &[String]) -> String {
    let mut text = String::new();
    for step in path {
        match step.split_at_checked(2) {
            Some(("f:", field)) => {
                text.push('.');
                text.push_str(field);
            }
            Some(("k:", key)) => {
                let keys: Value = serde_json::from_str(key).unwrap_or_default();
                let shown: Vec<String> = keys
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(field, value)| format!("{field}={value}"))
                    .collect();
                text.push_str(&format!("[{}]", shown.join(",")));
            }
            Some(("v:", value)) => text.push_str(&format!("[={value}]")),
            _ => {}
        }
    }
    text
}
