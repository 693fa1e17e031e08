//! Server-side apply: merge what a manager applies, find whom that would overrule, drop what it no longer applies.

use serde_json::{Value, json};

use crate::fields::{self, FieldSet};
use crate::kind::{Kind, Merge};
use crate::managed::{self, Entry};
use crate::request::WriteOptions;
use crate::schema::{self, Path};
use crate::status::ApiError;
use crate::typed::{self, Half};

/// A path such as `spec.containers[0].name` as the errors of applying name it: `.spec.containers[name="web"].name`.
pub(crate) fn typed_path(kind: &Kind, object: &Value, path: &str) -> String {
    let (mut value, mut schema_path, mut shown) = (object, Path::default(), String::new());
    for step in path.split('.') {
        let (field, index) = step.split_once('[').unwrap_or((step, ""));
        schema_path.push(field);
        value = &value[field];
        shown.push_str(&format!(".{field}"));
        if let Ok(index) = index.trim_end_matches(']').parse::<usize>() {
            value = &value[index];
            if let Merge::Keyed(keys) = schema::list(kind, &schema_path) {
                shown.push_str(&fields::show_step(&typed::key_step(value, keys)));
            }
        }
    }
    shown
}

/// Makes the applied configuration a new object, owned by its manager.
pub(crate) fn first(
    kind: &Kind,
    config: &mut Value,
    subresource: Option<&str>,
    options: &WriteOptions,
) -> Result<(), ApiError> {
    check(config)?;
    let fields = typed::fields(kind, config, Half::of(subresource));
    let mine = Entry::new(kind, subresource, &options.manager, "Apply");
    managed::write(config, &[Entry { fields, ..mine }]);
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
    let half = Half::of(subresource);
    let wanted = typed::fields(kind, config, half);
    let mut others = managed::read(live);
    if others.is_empty() {
        others.extend(managed::before_first_apply(kind, live));
    }
    let position = others.iter().position(|entry| entry.is(&options.manager, "Apply", subresource));
    let mut mine = match position {
        Some(index) => others.remove(index),
        // As in Kubernetes, who has changed nothing yet has no time.
        None => Entry { time: String::new(), ..Entry::new(kind, subresource, &options.manager, "Apply") },
    };

    let mut merged = live.clone();
    typed::merge(kind, &mut merged, config, half);
    // What the manager gave up and nobody owns goes; and a struct goes whole, with the defaults in it, when nobody owns
    // a field of it any more.
    let mut owned = wanted.clone();
    // Whoever applies names the object.
    owned.add_below("f:metadata".to_owned(), FieldSet::here());
    others.iter().for_each(|entry| owned.add(entry.fields.clone()));
    let mut gone = mine.fields.with_parents();
    gone.subtract(&owned.with_parents());
    typed::remove(kind, &mut merged, &gone);

    let compared = typed::compare(kind, Some(live), &merged, half);
    let changed = compared.changed();
    let conflicts: Vec<FieldSet> = others.iter().map(|entry| entry.fields.common(&changed)).collect();
    if !options.force && conflicts.iter().any(|fields| !fields.is_empty()) {
        return Err(conflict_error(&others, &conflicts));
    }
    for entry in &mut others {
        entry.fields.subtract(&changed);
        entry.fields.subtract(&compared.removed);
    }
    if !compared.is_empty() {
        mine.time = managed::written_at(subresource);
    }
    others.push(Entry { fields: wanted, api_version: kind.api_version(), ..mine });
    managed::write(&mut merged, &others);
    Ok(merged)
}

fn check(config: &Value) -> Result<(), ApiError> {
    if config["metadata"]["managedFields"].as_array().is_some_and(|list| !list.is_empty()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// How many fields an error names; it says how many more there are.
const MOST_NAMED: usize = 100;

fn conflict_error(entries: &[Entry], conflicts: &[FieldSet]) -> ApiError {
    let (mut texts, mut causes, mut count) = (Vec::new(), Vec::new(), 0);
    for (entry, fields) in entries.iter().zip(conflicts).filter(|(_, fields)| !fields.is_empty()) {
        let who = entry.show();
        let mut paths = fields.show();
        count += paths.len();
        let more = paths.len().saturating_sub(MOST_NAMED);
        paths.truncate(MOST_NAMED);
        causes.extend(paths.iter().map(|path| {
            json!({"reason": "FieldManagerConflict", "message": format!("conflict with {who}"),
                "field": path})
        }));
        if more > 0 {
            paths.push(format!("({more} more)"));
        }
        texts.push(match paths.as_slice() {
            [only] => format!("conflict with {who}: {only}"),
            many => format!("conflicts with {who}:\n- {}", many.join("\n- ")),
        });
    }
    let plural = if count == 1 { "" } else { "s" };
    let message = format!("Apply failed with {count} conflict{plural}: {}", texts.join("\n"));
    let mut error = ApiError::new(409, "Conflict", message);
    error.details = Some(json!({"causes": causes}));
    error
}
