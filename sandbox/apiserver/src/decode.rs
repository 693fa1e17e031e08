//! Decoding through the typed API, which finds unknown fields and wrong types.

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::presence;
use crate::request::FieldValidation;
use crate::status::ApiError;

/// The object as its type keeps it: without nulls and unknown fields. Those are errors or warnings, as asked. An error
/// says what is wrong; [`refused`] makes an answer of it.
pub(crate) fn decode(
    kind: &Kind,
    object: &Value,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, String> {
    let decoded = normalize(kind, object)?;
    if validation != FieldValidation::Ignore {
        let unknown = unknown_fields(kind, object)?;
        let texts: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
        if validation == FieldValidation::Strict && !texts.is_empty() {
            return Err(format!("strict decoding error: {}", texts.join(", ")));
        }
        warnings.extend(texts);
    }
    Ok(decoded)
}

/// The paths of fields that the type does not know.
pub(crate) fn unknown_fields(kind: &Kind, object: &Value) -> Result<Vec<String>, String> {
    let (_, kept) = normalize_both(kind, object)?;
    let mut unknown = Vec::new();
    find_unknown(object, &kept, &mut String::new(), &mut unknown);
    Ok(unknown)
}

/// The object as its type keeps it.
pub(crate) fn normalize(kind: &Kind, object: &Value) -> Result<Value, String> {
    normalize_both(kind, object).map(|(decoded, _)| decoded)
}

/// The object as its type keeps it, and before empty fields were left out and others added.
fn normalize_both(kind: &Kind, object: &Value) -> Result<(Value, Value), String> {
    let mut object = object.clone();
    write_quantities(&mut object)?;
    check_micro_times(kind, &object)?;
    (kind.does.before_decoding)(&mut object);
    let kept = (kind.does.decode)(&object)?;
    let mut decoded = kept.clone();
    presence::complete(kind, &object, &mut decoded);
    Ok((decoded, kept))
}

/// The answer to a body that can't be decoded.
pub(crate) fn refused(kind: &Kind, why: &str) -> ApiError {
    let (name, version) = (kind.kind, kind.version);
    ApiError::bad_request(format!("{name} in version \"{version}\" cannot be handled as a {name}: {why}"))
}

/// Times with microseconds are read with all six digits or not at all.
fn check_micro_times(kind: &Kind, object: &Value) -> Result<(), String> {
    for text in kind.does.micro_times.iter().filter_map(|path| object.pointer(path)?.as_str()) {
        let wrong = |rest: &str, layout: &str| {
            Err(format!(
                "parsing time \"{text}\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"{rest}\" \
                 as \"{layout}\""
            ))
        };
        if text.parse::<jiff::Timestamp>().is_err() {
            return wrong(text, "2006");
        }
        let rest = text.get(19..).unwrap_or("");
        let digits =
            rest.strip_prefix('.').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
        if digits < 6 {
            return wrong(rest, ".000000");
        }
        if digits > 6 {
            return wrong(&rest[7..], "Z07:00");
        }
    }
    Ok(())
}

/// As many unknown fields as Kubernetes names.
const MOST_UNKNOWN: usize = 100;

/// Paths of fields that the type does not know. A null is no field.
fn find_unknown(given: &Value, kept: &Value, path: &mut String, unknown: &mut Vec<String>) {
    let length = path.len();
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (key, value) in given {
                if unknown.len() == MOST_UNKNOWN {
                    return;
                }
                if value.is_null() || key == "stringData" {
                    continue;
                }
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                match kept.get(key) {
                    Some(kept) => find_unknown(value, kept, path, unknown),
                    None => unknown.push(path.clone()),
                }
                path.truncate(length);
            }
        }
        (Value::Array(given), Value::Array(kept)) => {
            for (index, (given, kept)) in given.iter().zip(kept).enumerate() {
                path.push_str(&format!("[{index}]"));
                find_unknown(given, kept, path, unknown);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// A quantity may be written as a number (`cpu: 2`) and in many ways (`1.5Gi`); it is kept as text, in one.
fn write_quantities(value: &mut Value) -> Result<(), String> {
    const MAPS: [&str; 5] = ["limits", "requests", "capacity", "allocatable", "overhead"];
    const FIELDS: [&str; 3] = ["averageValue", "sizeLimit", "divisor"];
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::Object(map) if MAPS.contains(&key.as_str()) => {
                        map.values_mut().try_for_each(write_quantity)?;
                    }
                    scalar if FIELDS.contains(&key.as_str()) => write_quantity(scalar)?,
                    other => write_quantities(other)?,
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(write_quantities),
        _ => Ok(()),
    }
}

fn write_quantity(value: &mut Value) -> Result<(), String> {
    let text = match &*value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return Ok(()),
    };
    *value = json!(quantity::canonical(&text).map_err(|malformed| malformed.to_string())?);
    Ok(())
}
