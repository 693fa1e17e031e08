//! The patch types: JSON patch, merge patch, strategic merge patch. (Server-side apply is [`crate::apply`].)

use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::schema::{self, Path};
use crate::status::ApiError;

pub(crate) const APPLY: &str = "application/apply-patch+yaml";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";

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
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
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

/// RFC 6902.
fn json_patch(current: &Value, patch: &Value) -> Result<Value, ApiError> {
    let mut object = current.clone();
    for operation in patch.as_array().into_iter().flatten() {
        one_operation(&mut object, operation).map_err(|why| {
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

fn one_operation(object: &mut Value, operation: &Value) -> Result<(), String> {
    let path = operation["path"].as_str().ok_or("an operation has no path")?;
    let missing = |path: &str| format!("path does not exist: {path}");
    match operation["op"].as_str().unwrap_or("") {
        "add" => add(object, path, operation["value"].clone()),
        "remove" => take(object, path).map(drop),
        "replace" => {
            if path.is_empty() {
                *object = operation["value"].clone();
                return Ok(());
            }
            *object.pointer_mut(path).ok_or_else(|| missing(path))? = operation["value"].clone();
            Ok(())
        }
        "test" => {
            let found = object.pointer(path).unwrap_or(&Value::Null);
            if *found == operation["value"] { Ok(()) } else { Err(format!("testing value {path} failed")) }
        }
        op @ ("copy" | "move") => {
            let from = operation["from"].as_str().ok_or("an operation has no from")?;
            let value = if op == "move" {
                take(object, from)?
            } else {
                object.pointer(from).cloned().ok_or_else(|| missing(from))?
            };
            add(object, path, value)
        }
        other => Err(format!("unknown operation {other:?}")),
    }
}

/// Splits a JSON pointer into its parent and its last, unescaped part.
fn split_pointer(path: &str) -> Result<(&str, String), String> {
    let (parent, last) = path.rsplit_once('/').ok_or_else(|| format!("not a JSON pointer: {path:?}"))?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(object: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *object = value;
        return Ok(());
    }
    let (parent, last) = split_pointer(path)?;
    match object.pointer_mut(parent) {
        Some(Value::Object(fields)) => {
            fields.insert(last, value);
            Ok(())
        }
        Some(Value::Array(list)) => {
            let index = if last == "-" { Ok(list.len()) } else { last.parse() };
            match index {
                Ok(index) if index <= list.len() => {
                    list.insert(index, value);
                    Ok(())
                }
                _ => Err(format!("index out of range: {path}")),
            }
        }
        _ => Err(format!("path does not exist: {path}")),
    }
}

fn take(object: &mut Value, path: &str) -> Result<Value, String> {
    let (parent, last) = split_pointer(path)?;
    let missing = || format!("path does not exist: {path}");
    match object.pointer_mut(parent) {
        Some(Value::Object(fields)) => fields.remove(&last).ok_or_else(missing),
        Some(Value::Array(list)) => {
            let index: usize = last.parse().map_err(|_| missing())?;
            if index < list.len() { Ok(list.remove(index)) } else { Err(missing()) }
        }
        _ => Err(missing()),
    }
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
            let gone = value.as_array().map_or(&[][..], Vec::as_slice);
            if let Some(Value::Array(items)) = object.get_mut(list) {
                items.retain(|item| !gone.contains(item));
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
                let named: Vec<Value> = order.iter().map(|item| item[merge_key].clone()).collect();
                let old = items.clone();
                *items = arrange(std::mem::take(items), &named, &old, merge_key);
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
    let Some(merge_key) = schema::merge_key(kind, path) else {
        if schema::is_set(kind, path) {
            let mut items = target.as_array().cloned().unwrap_or_default();
            for item in patch {
                if !items.contains(item) {
                    items.push(item.clone());
                }
            }
            *target = Value::Array(items);
        } else {
            *target = Value::Array(patch.to_vec());
        }
        return Ok(());
    };
    if patch.iter().any(|item| item["$patch"] == "replace") {
        let items = patch.iter().filter(|item| item.get("$patch").is_none()).cloned().collect();
        *target = Value::Array(items);
        return Ok(());
    }
    let mut items = target.as_array().cloned().unwrap_or_default();
    for change in patch {
        let Some(key) = change.get(merge_key) else {
            let shown = print_as_go(change);
            let why = format!("map: {shown} does not contain declared merge key: {merge_key}");
            return Err(ApiError::new(500, "", why));
        };
        let found = items.iter().position(|item| item.get(merge_key) == Some(key));
        if change["$patch"] == "delete" {
            items.retain(|item| item.get(merge_key) != Some(key));
        } else if let Some(index) = found {
            strategic(kind, path, &mut items[index], change)?;
        } else {
            let mut item = Value::Null;
            strategic(kind, path, &mut item, change)?;
            items.push(item);
        }
    }
    let named: Vec<Value> =
        order.map_or(patch, Vec::as_slice).iter().map(|item| item[merge_key].clone()).collect();
    let before = target.as_array().map_or(&[][..], Vec::as_slice);
    *target = Value::Array(arrange(items, &named, before, merge_key));
    Ok(())
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
fn arrange(items: Vec<Value>, named: &[Value], before: &[Value], merge_key: &str) -> Vec<Value> {
    let place = |key: &Value, keys: &[Value]| keys.iter().position(|other| other == key);
    let old: Vec<Value> = before.iter().map(|item| item[merge_key].clone()).collect();
    let (mut patched, mut rest): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| named.contains(&item[merge_key]));
    patched.sort_by_key(|item| place(&item[merge_key], named));
    rest.sort_by_key(|item| place(&item[merge_key], &old));
    let (mut patched, mut rest) = (patched.into_iter().peekable(), rest.into_iter().peekable());
    let mut arranged = Vec::new();
    while let (Some(next), Some(other)) = (patched.peek(), rest.peek()) {
        let stays_first = place(&next[merge_key], &old)
            .zip(place(&other[merge_key], &old))
            .is_some_and(|(next, other)| other < next);
        arranged.extend(if stays_first { rest.next() } else { patched.next() });
    }
    arranged.extend(patched);
    arranged.extend(rest);
    arranged
}
