//! Server-side apply: merge what a manager applies, find whom that would overrule, drop what it no longer applies.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::defaults;
use crate::fields::{self, FieldPath, FieldSet};
use crate::kinds::Kind;
use crate::managed::{self, Entry};
use crate::request::WriteOptions;
use crate::schema::{self, Merge, Path};
use crate::status::ApiError;

/// A path such as `spec.containers[0].name` as the errors of applying name it: `.spec.containers[name="web"].name`.
pub(crate) fn typed_path(kind: &Kind, object: &Value, path: &str) -> String {
    let (mut value, mut schema_path, mut steps) = (object, Path::default(), Vec::new());
    for step in path.split('.') {
        let (field, index) = step.split_once('[').unwrap_or((step, ""));
        schema_path.push(field);
        value = &value[field];
        steps.push(format!("f:{field}"));
        if let Ok(index) = index.trim_end_matches(']').parse::<usize>() {
            value = &value[index];
            if let Merge::Keyed(keys) = schema::list(kind, &schema_path) {
                steps.push(fields::item_key(value, keys));
            }
        }
    }
    fields::show(&steps)
}

/// Makes the applied configuration a new object, owned by its manager.
pub(crate) fn first(
    kind: &Kind,
    config: &mut Value,
    subresource: Option<&str>,
    options: &WriteOptions,
) -> Result<(), ApiError> {
    check(config)?;
    drop_nulls(config);
    let fields = fields::of(kind, config, subresource == Some("status"));
    managed::write(config, &[entry(kind, subresource, options, fields)]);
    Ok(())
}

/// The live object with the configuration applied.
pub(crate) fn merge(
    kind: &Kind,
    live: &Value,
    config: &Value,
    subresource: Option<&str>,
    options: &WriteOptions,
) -> Result<Value, ApiError> {
    check(config)?;
    let mut config = config.clone();
    drop_nulls(&mut config);
    let status = subresource == Some("status");
    let wanted = fields::of(kind, &config, status);
    let mut entries = managed::read(live);
    if entries.is_empty() {
        entries.extend(managed::before_first_apply(kind, live));
    }
    let mine = entries.iter().position(|entry| entry.is(&options.manager, "Apply", subresource));
    let before = mine.map(|index| entries[index].fields.clone()).unwrap_or_default();

    let mut merged = live.clone();
    merge_fields(kind, &mut merged, &config, status);
    // What defaulting puts back is no change: a reference applied without its default apiVersion, say.
    let mut completed = merged.clone();
    defaults::apply(kind, &mut completed);
    let differs = |path: &FieldPath| {
        !managed::is_item(path) && fields::get(live, path) != fields::get(&completed, path)
    };
    let overruled: FieldSet = wanted.iter().filter(|path| differs(path)).cloned().collect();
    let mut conflicts: Vec<(usize, FieldPath)> = Vec::new();
    for (index, entry) in entries.iter().enumerate().filter(|(index, _)| Some(*index) != mine) {
        conflicts.extend(entry.fields.intersection(&overruled).map(|path| (index, path.clone())));
    }
    if !conflicts.is_empty() && !options.force {
        return Err(conflict_error(&entries, &conflicts));
    }
    for (index, path) in &conflicts {
        entries[*index].fields.remove(path);
    }

    let others: FieldSet = entries
        .iter()
        .enumerate()
        .filter(|(index, _)| Some(*index) != mine)
        .flat_map(|(_, entry)| entry.fields.iter().cloned())
        .collect();
    for path in before.difference(&wanted) {
        let has_within =
            |set: &FieldSet| set.range(path.clone()..).next().is_some_and(|other| other.starts_with(path));
        if !has_within(&others) && !has_within(&wanted) {
            fields::remove(&mut merged, path, &|parent| {
                others.contains(parent) || wanted.iter().any(|path| path.starts_with(parent))
            });
        }
    }

    let unchanged = before == wanted;
    match mine {
        Some(index) => {
            entries[index].fields = wanted;
            if !unchanged || !overruled.is_empty() {
                entries[index].time = managed::written_at(subresource);
            }
            entries[index].api_version = kind.api_version();
        }
        None => entries.push(entry(kind, subresource, options, wanted)),
    }
    managed::write(&mut merged, &entries);
    Ok(merged)
}

fn entry(kind: &Kind, subresource: Option<&str>, options: &WriteOptions, fields: FieldSet) -> Entry {
    Entry {
        manager: options.manager.clone(),
        operation: "Apply".to_owned(),
        api_version: kind.api_version(),
        subresource: subresource.unwrap_or_default().to_owned(),
        time: managed::written_at(subresource),
        fields,
    }
}

fn check(config: &Value) -> Result<(), ApiError> {
    if config["metadata"]["managedFields"].as_array().is_some_and(|list| !list.is_empty()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn conflict_error(entries: &[Entry], conflicts: &[(usize, FieldPath)]) -> ApiError {
    let mut by_manager: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (index, path) in conflicts {
        by_manager.entry(*index).or_default().push(fields::show(path));
    }
    let texts: Vec<String> = by_manager
        .iter()
        .map(|(index, paths)| {
            let who = entries[*index].show();
            match paths.as_slice() {
                [only] => format!("conflict with {who}: {only}"),
                many => format!("conflicts with {who}:\n- {}", many.join("\n- ")),
            }
        })
        .collect();
    let count = conflicts.len();
    let message = format!(
        "Apply failed with {count} conflict{}: {}",
        if count == 1 { "" } else { "s" },
        texts.join("\n")
    );
    let mut error = ApiError::new(409, "Conflict", message);
    error.details = Some(json!({"causes": conflicts
        .iter()
        .map(|(index, path)| json!({
            "reason": "FieldManagerConflict",
            "message": format!("conflict with {}", entries[*index].show()),
            "field": fields::show(path),
        }))
        .collect::<Vec<_>>()}));
    error
}

fn merge_fields(kind: &Kind, live: &mut Value, config: &Value, status: bool) {
    for (field, value) in config.as_object().into_iter().flatten() {
        let counts = match field.as_str() {
            "apiVersion" | "kind" => false,
            "metadata" => !status,
            "status" => status,
            _ => !status,
        };
        if counts {
            let mut path = Path::default();
            path.push(field);
            merge_value(kind, &mut path, &mut live[field.as_str()], value);
        }
    }
}

fn merge_value(kind: &Kind, path: &mut Path, live: &mut Value, config: &Value) {
    match config {
        Value::Object(fields) if schema::map(path) != Merge::Atomic => {
            if !live.is_object() {
                *live = Value::Object(Map::new());
            }
            for (field, value) in fields {
                path.push(field);
                merge_value(kind, path, &mut live[field.as_str()], value);
                path.pop();
            }
        }
        Value::Array(items) => match schema::list(kind, path) {
            Merge::Keyed(keys) => merge_items(kind, path, live, items, keys),
            Merge::Set => {
                let mut merged = live.as_array().cloned().unwrap_or_default();
                for item in items {
                    if !merged.contains(item) {
                        merged.push(item.clone());
                    }
                }
                *live = Value::Array(merged);
            }
            Merge::Atomic | Merge::Granular => *live = config.clone(),
        },
        _ => *live = config.clone(),
    }
}

/// Items come in the order applied; those that only the live list has keep their places before what follows them there.
fn merge_items(kind: &Kind, path: &mut Path, live: &mut Value, items: &[Value], keys: &[&str]) {
    let key = |item: &Value| fields::item_key(item, keys);
    let applied: Vec<String> = items.iter().map(key).collect();
    let old: Vec<Value> = live.as_array().cloned().unwrap_or_default();
    let mut rest = old.iter().peekable();
    let mut merged: Vec<Value> = Vec::new();
    for (item, name) in items.iter().zip(&applied) {
        let done: Vec<String> = merged.iter().map(key).collect();
        while let Some(next) = rest.next_if(|next| !applied.contains(&key(next)) || done.contains(&key(next)))
        {
            if !applied.contains(&key(next)) {
                merged.push(next.clone());
            }
        }
        let mut found = old.iter().find(|old| key(old) == *name).cloned().unwrap_or(Value::Null);
        merge_value(kind, path, &mut found, item);
        merged.push(found);
        rest.next_if(|next| key(next) == *name);
    }
    merged.extend(rest.filter(|next| !applied.contains(&key(next))).cloned());
    *live = Value::Array(merged);
}
