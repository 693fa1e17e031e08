//! The patch types: JSON patch, merge patch, strategic merge patch. (Server-side apply is [`crate::apply`].)

use serde_json::{Map, Value};

use crate::kinds::Kind;
use crate::schema::{self, Path};
use crate::status::ApiError;

/// The object with the patch applied.
pub(crate) fn apply(
    content_type: &str,
    kind: &Kind,
    current: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    match content_type {
        "application/json-patch+json" => json_patch(current, patch),
        "application/merge-patch+json" => Ok(merge(current.clone(), patch)),
        "application/strategic-merge-patch+json" => {
            let mut object = current.clone();
            strategic(kind, &mut Path::default(), &mut object, patch)?;
            Ok(object)
        }
        other => Err(ApiError::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, \
                 application/strategic-merge-patch+json (not {other})"
            ),
        )),
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
    let operations = patch.as_array().ok_or_else(|| {
        ApiError::bad_request("error decoding patch: a JSON patch is an array of operations")
    })?;
    let mut object = current.clone();
    for operation in operations {
        one_operation(&mut object, operation).map_err(|why| {
            ApiError::new(
                422,
                "Invalid",
                format!("the server rejected our request due to an error in our request: {why}"),
            )
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
                reorder(items, order, merge_key);
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
            return Err(ApiError::bad_request(format!(
                "map: {change} does not contain declared merge key: {merge_key}"
            )));
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
    if let Some(order) = order {
        reorder(&mut items, order, merge_key);
    }
    *target = Value::Array(items);
    Ok(())
}

/// Items in the order given; those it does not name keep their places relative to each other, at the end.
fn reorder(items: &mut [Value], order: &[Value], merge_key: &str) {
    items.sort_by_key(|item| {
        order.iter().position(|o| o.get(merge_key) == item.get(merge_key)).unwrap_or(usize::MAX)
    });
}
