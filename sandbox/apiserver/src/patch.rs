//! The patch types: JSON patch, merge patch, strategic merge patch. (Server-side apply is [`crate::apply`].)

use std::collections::{HashMap, HashSet};

use json_patch::PatchOperation;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use crate::kind::Kind;
use crate::schema::{self, Path};
use crate::size;
use crate::status::ApiError;

pub(crate) const APPLY: &str = "application/apply-patch+yaml";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";

/// How many operations a JSON patch may have, and how much all its copies together may add, as Kubernetes has it.
const MAX_OPERATIONS: usize = 10_000;
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// The patch that a body holds.
pub(crate) fn read(content_type: &str, body: &[u8]) -> Result<Value, ApiError> {
    if ![JSON, MERGE, STRATEGIC].contains(&content_type) {
        let mut error = ApiError::new(415, "UnsupportedMediaType", "415: Unsupported Media Type");
        error.details = Some(json!({}));
        return Err(error);
    }
    let patch: Value = serde_json::from_slice(body).map_err(|error| {
        let why = if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() };
        ApiError::bad_request(format!("error decoding patch: {why}"))
    })?;
    if content_type == JSON && !patch.is_array() {
        return Err(ApiError::bad_request(
            "error decoding patch: json: cannot unmarshal object into Go value of type \
             []handlers.jsonPatchOp",
        ));
    }
    Ok(patch)
}

/// The object with the patch applied.
pub(crate) fn apply(
    content_type: &str,
    kind: &Kind,
    current: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    match content_type {
        JSON => json_patch(current, patch),
        STRATEGIC => {
            let mut object = current.clone();
            strategic(kind, &mut Path::default(), &mut object, patch)?;
            Ok(object)
        }
        _ => Ok(merge(current.clone(), patch)),
    }
}

/// RFC 7396.
pub(crate) fn merge(mut target: Value, patch: &Value) -> Value {
    let Value::Object(fields) = patch else { return patch.clone() };
    if !target.is_object() {
        target = Value::Object(Map::new());
    }
    if let Value::Object(object) = &mut target {
        for (key, value) in fields {
            if value.is_null() {
                object.remove(key);
            } else {
                let old = object.remove(key).unwrap_or(Value::Null);
                object.insert(key.clone(), merge(old, value));
            }
        }
    }
    target
}

/// RFC 6902, within the bounds of Kubernetes: a patch of 2 kB could otherwise copy an object up to gigabytes.
fn json_patch(current: &Value, patch: &Value) -> Result<Value, ApiError> {
    let operations = patch.as_array().map_or(&[][..], Vec::as_slice);
    if operations.len() > MAX_OPERATIONS {
        let given = operations.len();
        return Err(ApiError::too_large(&format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {given}"
        )));
    }
    let mut object = current.clone();
    let mut copied_bytes = 0;
    for operation in operations {
        one_operation(&mut object, operation, &mut copied_bytes).map_err(|why| {
            tracing::debug!("a JSON patch cannot be applied: {why}");
            // A real server doesn't say why either.
            let message = "the server rejected our request due to an error in our request";
            let mut error = ApiError::new(422, "Invalid", message);
            error.details = Some(json!({}));
            error
        })?;
    }
    Ok(object)
}

fn one_operation(object: &mut Value, operation: &Value, copied_bytes: &mut usize) -> Result<(), String> {
    let operation = PatchOperation::deserialize(operation).map_err(|error| error.to_string())?;
    let depth = operation.path().count();
    let found = |pointer: &str| object.pointer(pointer).ok_or_else(|| format!("nothing is at {pointer:?}"));
    match &operation {
        PatchOperation::Add(add) => size::check_depth(&add.value, depth)?,
        PatchOperation::Replace(replace) => size::check_depth(&replace.value, depth)?,
        PatchOperation::Move(moved) => size::check_depth(found(moved.from.as_str())?, depth)?,
        PatchOperation::Copy(copy) => {
            let from = found(copy.from.as_str())?;
            *copied_bytes += size::of(from);
            if *copied_bytes > MAX_COPIED_BYTES {
                return Err(format!("its copies add up to more than {MAX_COPIED_BYTES} bytes"));
            }
            size::check_depth(from, depth)?;
        }
        // To a test, what is absent is null.
        PatchOperation::Test(test) => {
            let found = object.pointer(test.path.as_str()).unwrap_or(&Value::Null);
            return if *found == test.value { Ok(()) } else { Err(format!("testing {} failed", test.path)) };
        }
        PatchOperation::Remove(_) => {}
    }
    // What an operation that fails has changed already goes with the object.
    json_patch::patch_unsafe(object, std::slice::from_ref(&operation)).map_err(|error| error.to_string())
}

/// Merges maps field by field, and the lists that have a merge key item by item; honours `$patch`, `$retainKeys`,
/// `$deleteFromPrimitiveList` and `$setElementOrder`.
fn strategic(kind: &Kind, path: &mut Path, target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match fields.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let mut replacement = fields.clone();
            replacement.remove("$patch");
            *target = Value::Object(replacement);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Null;
            return Ok(());
        }
        _ => {}
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(object) = target else { return Ok(()) };
    if let Some(Value::Array(keep)) = fields.get("$retainKeys") {
        object.retain(|key, _| keep.iter().any(|kept| kept == key));
    }
    for (key, value) in fields {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone: HashSet<String> =
                value.as_array().into_iter().flatten().map(Value::to_string).collect();
            if let Some(Value::Array(items)) = object.get_mut(list) {
                items.retain(|item| !gone.contains(&item.to_string()));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        path.push(key);
        let merged = match value {
            Value::Null => {
                object.remove(key);
                Ok(())
            }
            Value::Array(items) => {
                let old = object.entry(key.clone()).or_insert(Value::Null);
                let order = fields.get(&format!("$setElementOrder/{key}"));
                strategic_list(kind, path, old, items, order.and_then(Value::as_array))
            }
            _ => {
                let old = object.entry(key.clone()).or_insert(Value::Null);
                let result = strategic(kind, path, old, value);
                if old.is_null() {
                    object.remove(key);
                }
                result
            }
        };
        path.pop();
        merged?;
    }
    // An order can come without changed items: the list itself is then not in the patch.
    for (key, order) in fields {
        if let (Some(list), Value::Array(order)) = (key.strip_prefix("$setElementOrder/"), order)
            && !fields.contains_key(list)
        {
            path.push(list);
            if let (Some(merge_key), Some(Value::Array(items))) =
                (schema::merge_key(kind, path), object.get_mut(list))
            {
                let (named, before) = (places(order, merge_key), places(items, merge_key));
                *items = arrange(std::mem::take(items), &named, &before, merge_key);
            }
            path.pop();
        }
    }
    Ok(())
}

fn strategic_list(
    kind: &Kind,
    path: &mut Path,
    target: &mut Value,
    patch: &[Value],
    order: Option<&Vec<Value>>,
) -> Result<(), ApiError> {
    let mut items = match target.take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    let Some(merge_key) = schema::merge_key(kind, path) else {
        *target = Value::Array(if schema::is_set(kind, path) {
            let mut known: HashSet<String> = items.iter().map(Value::to_string).collect();
            items.extend(patch.iter().filter(|item| known.insert(item.to_string())).cloned());
            items
        } else {
            patch.to_vec()
        });
        return Ok(());
    };
    if patch.iter().any(|item| item["$patch"] == "replace") {
        let items = patch.iter().filter(|item| item.get("$patch").is_none()).cloned().collect();
        *target = Value::Array(items);
        return Ok(());
    }
    let before = places(&items, merge_key);
    let mut deleted = HashSet::new();
    let mut index = before.clone();
    for change in patch {
        if change.get(merge_key).is_none() {
            let shown = print_as_go(change);
            let why = format!("map: {shown} does not contain declared merge key: {merge_key}");
            return Err(ApiError::new(500, "", why));
        }
        let key = key_of(change, merge_key);
        if change["$patch"] == "delete" {
            index.remove(&key);
            deleted.insert(key);
            continue;
        }
        match index.get(&key) {
            Some(at) => strategic(kind, path, &mut items[*at], change)?,
            None => {
                let mut item = Value::Null;
                strategic(kind, path, &mut item, change)?;
                index.insert(key, items.len());
                items.push(item);
            }
        }
    }
    let kept = items.into_iter().enumerate().filter(|(at, item)| {
        let key = key_of(item, merge_key);
        !deleted.contains(&key) || index.get(&key) == Some(at)
    });
    let kept = kept.map(|(_, item)| item).collect();
    let named = places(order.map_or(patch, Vec::as_slice), merge_key);
    *target = Value::Array(arrange(kept, &named, &before, merge_key));
    Ok(())
}

/// What tells an item from the others, as text.
fn key_of(item: &Value, merge_key: &str) -> String {
    item[merge_key].to_string()
}

/// Where the first item with each key is.
fn places(items: &[Value], merge_key: &str) -> HashMap<String, usize> {
    let mut places = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        places.entry(key_of(item, merge_key)).or_insert(place);
    }
    places
}

/// As `fmt.Print` shows it: `map[image:web:1 name:web]`.
fn print_as_go(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let parts: Vec<String> =
                fields.iter().map(|(key, value)| format!("{key}:{}", print_as_go(value))).collect();
            format!("map[{}]", parts.join(" "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(print_as_go).collect::<Vec<_>>().join(" ")),
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// Those that the patch names come in its order; the others stay before what they were in front of, where the patch
/// names that, and come last otherwise.
fn arrange(
    items: Vec<Value>,
    named: &HashMap<String, usize>,
    before: &HashMap<String, usize>,
    merge_key: &str,
) -> Vec<Value> {
    let keyed = items.into_iter().map(|item| (key_of(&item, merge_key), item));
    let (mut patched, mut rest): (Vec<_>, Vec<_>) = keyed.partition(|(key, _)| named.contains_key(key));
    patched.sort_by_key(|(key, _)| named.get(key));
    rest.sort_by_key(|(key, _)| before.get(key));
    let (mut patched, mut rest) = (patched.into_iter().peekable(), rest.into_iter().peekable());
    let mut arranged = Vec::new();
    while let (Some((next, _)), Some((other, _))) = (patched.peek(), rest.peek()) {
        let stays_first = before.get(next).zip(before.get(other)).is_some_and(|(next, other)| other < next);
        arranged.extend(if stays_first { rest.next() } else { patched.next() });
    }
    arranged.extend(patched);
    arranged.extend(rest);
    arranged.into_iter().map(|(_, item)| item).collect()
}
