//! What happens to an object on its way into the store: system metadata, separation of spec and status, defaults,
//! validation.

use serde_json::{Map, Value, json};

use crate::causes::Cause;
use crate::kind::{Kind, Storage};
use crate::kinds::KINDS;
use crate::meta::meta;
use crate::request::WriteOptions;
use crate::status::ApiError;
use crate::{decode, defaults, managed, size, time, validate, views};

/// Metadata that only the server writes.
const SYSTEM: [&str; 6] = [
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "resourceVersion",
];

/// Checks that a body is of the kind, namespace and name that the path says, and fills in what it leaves out.
pub(crate) fn identify(
    kind: &Kind,
    namespace: &str,
    name: Option<&str>,
    mut object: Value,
) -> Result<Value, ApiError> {
    let Some(fields) = object.as_object_mut() else {
        return Err(ApiError::bad_request("the object provided is unrecognized: it is not a JSON object"));
    };
    let wanted = kind.api_version();
    let given = |field: &str, wanted: &str| {
        let given = fields.get(field).and_then(Value::as_str).unwrap_or("");
        if given.is_empty() { wanted.to_owned() } else { given.to_owned() }
    };
    let (given_kind, given_version) = (given("kind", kind.kind), given("apiVersion", &wanted));
    if (given_kind.as_str(), given_version.as_str()) != (kind.kind, wanted.as_str()) {
        return Err(another_kind(kind, &given_kind, &given_version));
    }
    fields.insert("apiVersion".to_owned(), json!(wanted));
    fields.insert("kind".to_owned(), json!(kind.kind));
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    let Some(metadata) = metadata.as_object_mut() else {
        return Err(ApiError::bad_request("metadata must be an object"));
    };
    let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or("");
    if !given.is_empty() && given != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if kind.namespaced {
        metadata.insert("namespace".to_owned(), json!(namespace));
    } else {
        metadata.remove("namespace");
    }
    if let Some(name) = name {
        let given = metadata.get("name").and_then(Value::as_str).unwrap_or("");
        if !given.is_empty() && given != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        metadata.insert("name".to_owned(), json!(name));
    }
    Ok(object)
}

/// The body is an object, but not of the kind that the path names.
fn another_kind(kind: &Kind, given: &str, version: &str) -> ApiError {
    let wanted = kind.api_version();
    let known = KINDS.iter().find(|known| known.kind == given && known.api_version() == version);
    let (short, why) = match known {
        Some(known) if known.group == kind.group && known.kind == kind.kind => {
            return ApiError::bad_request(format!(
                "the API version in the data ({version}) does not match the expected API version ({wanted})"
            ));
        }
        Some(known) => {
            let (package, name) = (kind.package(), kind.kind);
            let why =
                format!("converting ({}.{given}) to ({package}.{name}): unknown conversion", known.version);
            (known.version, why)
        }
        None => {
            let why = format!("no kind \"{given}\" is registered for version \"{version}\"");
            (kind.version, why)
        }
    };
    ApiError::bad_request(format!(
        "{given} in version \"{short}\" cannot be handled as a {}: {why}",
        kind.kind
    ))
}

/// Decodes as the kind asked for and converts to the kind stored; else says what is wrong.
pub(crate) fn to_stored(
    kind: &'static Kind,
    object: &Value,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Value, String> {
    let decoded = decode::decode(kind, object, options.validation, warnings)?;
    if !matches!(kind.storage, Storage::ViewOf(..)) {
        return Ok(decoded);
    }
    decode::normalize(kind.stored(), &views::store(kind, decoded))
}

/// A new object, complete and valid.
pub(crate) fn new_object(kind: &Kind, mut object: Value) -> Result<Value, ApiError> {
    let metadata = metadata_mut(&mut object)?;
    for field in SYSTEM {
        metadata.remove(field);
    }
    let generate = metadata.get("generateName").and_then(Value::as_str).unwrap_or("").to_owned();
    if metadata.get("name").and_then(Value::as_str).unwrap_or("").is_empty() && !generate.is_empty() {
        metadata.insert("name".to_owned(), json!(format!("{generate}{}", suffix())));
    }
    metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), json!(time::now()));
    if kind.generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
    if kind.has("status") && !kind.status_at_creation {
        clear_status(&mut object);
    }
    defaults::apply(kind, &mut object);
    let causes = validate::object(kind, &object, None);
    if causes.is_empty() { Ok(object) } else { Err(ApiError::invalid(kind, meta(&object, "name"), &causes)) }
}

/// The next state of an object, complete and valid: what the subresource may not change stays as it was.
pub(crate) fn next_object(
    kind: &Kind,
    old: &Value,
    mut object: Value,
    subresource: Option<&str>,
) -> Result<Value, ApiError> {
    let name = meta(old, "name").to_owned();
    let uid = meta(&object, "uid");
    if !uid.is_empty() && uid != meta(old, "uid") {
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}, ResourceVersion: 0, \
             AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            [kind.plural, meta(old, "namespace"), &name]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join("/"),
            meta(old, "uid")
        );
        return Err(ApiError::conflict(kind, &name, &why));
    }
    if subresource == Some("status") {
        let given_fields = object["metadata"]["managedFields"].take();
        let annotations = object["metadata"]["annotations"].take();
        let status = object["status"].take();
        object = old.clone();
        set_or_remove(&mut object["metadata"], "managedFields", given_fields);
        if kind.status_annotates {
            set_or_remove(&mut object["metadata"], "annotations", annotations);
        }
        set_or_remove(&mut object, "status", status);
    } else if kind.has("status") && subresource != Some("binding") {
        set_or_remove(&mut object, "status", old["status"].clone());
    }
    let metadata = metadata_mut(&mut object)?;
    for field in SYSTEM {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    if subresource.is_none() && kind.is("", "namespaces") && object.get("spec").is_none() {
        object["spec"] = old["spec"].clone();
    }
    defaults::carry_over(kind, old, &mut object);
    defaults::apply(kind, &mut object);
    defaults::admit(kind, &mut object);
    let annotations = |object: &Value| object["metadata"]["annotations"].clone();
    let changed = beyond_metadata(old) != beyond_metadata(&object)
        || kind.annotations_count && annotations(old) != annotations(&object);
    if kind.generation && !matches!(subresource, Some("binding" | "status")) && changed {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        object["metadata"]["generation"] = json!(generation);
    }
    let bound = subresource == Some("binding");
    let causes = validate::object(kind, &object, Some(old).filter(|_| !bound));
    if causes.is_empty() { Ok(object) } else { Err(ApiError::invalid(kind, &name, &causes)) }
}

/// Refuses an object that etcd would not take. Who set which field is given up first, where that is enough; not when it
/// is applied: an apply could no longer tell what it owns.
pub(crate) fn check_size(object: &mut Value, applied: bool) -> Result<(), ApiError> {
    let fits = |object: &Value| size::of(object) <= size::MAX_OBJECT_BYTES;
    if !fits(object) && !applied {
        managed::write(object, &[]);
    }
    if fits(object) { Ok(()) } else { Err(ApiError::new(500, "", "etcdserver: request is too large")) }
}

/// Is there nothing to write? Times in managedFields do not count.
pub(crate) fn unchanged(old: &Value, new: &Value) -> bool {
    let fields = |object: &Value| -> Vec<(String, Value)> {
        object
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| *key != "metadata")
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let metadata = |object: &Value| -> Map<String, Value> {
        let mut metadata = object["metadata"].as_object().cloned().unwrap_or_default();
        metadata.remove("resourceVersion");
        if let Some(managed) = metadata.get_mut("managedFields") {
            managed::drop_times(managed);
        }
        metadata
    };
    fields(old) == fields(new) && metadata(old) == metadata(new)
}

/// Everything that a generation counts.
fn beyond_metadata(object: &Value) -> Map<String, Value> {
    let mut fields = object.as_object().cloned().unwrap_or_default();
    fields.remove("metadata");
    fields.remove("status");
    fields
}

fn clear_status(object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
}

fn set_or_remove(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        if value.is_null() {
            fields.remove(field);
        } else {
            fields.insert(field.to_owned(), value);
        }
    }
}

fn metadata_mut(object: &mut Value) -> Result<&mut Map<String, Value>, ApiError> {
    object["metadata"].as_object_mut().ok_or_else(|| ApiError::bad_request("metadata must be an object"))
}

/// Five characters that spell no words, as generateName appends.
fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    uuid::Uuid::new_v4()
        .as_bytes()
        .iter()
        .take(5)
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

/// The error for an object without a name.
pub(crate) fn require_name(kind: &Kind, object: &Value) -> Result<(), ApiError> {
    if meta(object, "name").is_empty() && meta(object, "generateName").is_empty() {
        let cause = Cause::required("metadata.name", "name or generateName is required");
        return Err(ApiError::invalid(kind, "", &[cause]));
    }
    Ok(())
}
