//! Reads the protobuf bodies that kubectl's typed commands send (`kubectl create namespace`, `autoscale`,
//! `auth can-i`). Answers are always JSON, which the same clients accept.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::kinds::KINDS;
use crate::time;

/// What every protobuf body of Kubernetes starts with.
const MAGIC: &[u8] = b"k8s\0";
/// Deeper than any of the messages nest; guards the stack.
const MAX_DEPTH: usize = 32;

/// Is this body protobuf?
pub(crate) fn is_protobuf(body: &[u8]) -> bool {
    body.starts_with(MAGIC)
}

/// A protobuf body as JSON.
pub(crate) fn to_json(body: &[u8]) -> Result<Value, String> {
    let envelope = fields_of(body.get(MAGIC.len()..).unwrap_or_default())?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for (number, field) in envelope {
        match (number, field) {
            (1, Field::Bytes(bytes)) => {
                for (number, field) in fields_of(bytes)? {
                    match (number, field) {
                        (1, Field::Bytes(bytes)) => api_version = text(bytes),
                        (2, Field::Bytes(bytes)) => kind = text(bytes),
                        _ => {}
                    }
                }
            }
            (2, Field::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let name = message_name(&api_version, &kind)
        .ok_or_else(|| format!("{api_version} {kind} is not read as protobuf here; send JSON"))?;
    let mut object = message(&name, raw, 0)?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object))
}

/// `core.Pod`; the two versions of autoscaling have messages of their own.
fn message_name(api_version: &str, kind: &str) -> Option<String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let package = match (group, kind) {
        (_, "DeleteOptions") => "meta".to_owned(),
        ("", _) => "core".to_owned(),
        ("autoscaling", _) => format!("autoscaling.{version}"),
        _ => group.split('.').next().unwrap_or("").to_owned(),
    };
    let known = kind == "DeleteOptions" || group == "policy" || KINDS.iter().any(|k| k.group == group);
    let name = format!("{package}.{kind}");
    (known && table().contains_key(name.as_str())).then_some(name)
}

#[derive(Debug, Clone, Copy)]
struct Known {
    name: &'static str,
    kind: &'static str,
    keep_zero: bool,
}

/// Message → field number → field.
fn table() -> &'static HashMap<&'static str, HashMap<u64, Known>> {
    static TABLE: OnceLock<HashMap<&'static str, HashMap<u64, Known>>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let lines = include_str!("protobuf/fields.txt").lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| {
                let mut words = line.split(' ');
                let message = words.next()?;
                let fields = words.filter_map(|word| {
                    let (name, rest) = word.split_once('=')?;
                    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
                    let (number, kind) = rest.split_at(digits);
                    let keep_zero = kind.ends_with('!');
                    Some((number.parse().ok()?, Known { name, kind: kind.trim_end_matches('!'), keep_zero }))
                });
                Some((message, fields.collect()))
            })
            .collect()
    })
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or("protobuf: the message is cut short")?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("protobuf: a number is too long".to_owned())
}

fn take<'a>(bytes: &mut &'a [u8], count: u64) -> Result<&'a [u8], String> {
    let cut = usize::try_from(count).ok().and_then(|count| bytes.split_at_checked(count));
    let (taken, rest) = cut.ok_or("protobuf: the message is cut short")?;
    *bytes = rest;
    Ok(taken)
}

fn fields_of(mut bytes: &[u8]) -> Result<Vec<(u64, Field<'_>)>, String> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            1 => Field::Bytes(take(&mut bytes, 8)?),
            2 => {
                let length = varint(&mut bytes)?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            5 => Field::Bytes(take(&mut bytes, 4)?),
            other => return Err(format!("protobuf: unknown wire type {other}")),
        };
        fields.push((tag >> 3, field));
    }
    Ok(fields)
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, String> {
    let known = table().get(name).ok_or_else(|| format!("protobuf: unknown message {name}"))?;
    if depth > MAX_DEPTH {
        return Err("protobuf: messages nest too deeply".to_owned());
    }
    let mut object = Map::new();
    for (number, field) in fields_of(bytes)? {
        let Some(known) = known.get(&number) else { continue };
        if known.name == "-" {
            if let Field::Bytes(bytes) = field {
                object.extend(message(known.kind, bytes, depth + 1)?);
            }
        } else if let Some(item) = known.kind.strip_prefix('*') {
            let list = object.entry(known.name).or_insert_with(|| json!([]));
            if let (Some(value), Some(list)) = (single(item, &field, true, depth)?, list.as_array_mut()) {
                list.push(value);
            }
        } else if let Some(item) = known.kind.strip_prefix('%') {
            let Field::Bytes(bytes) = field else { continue };
            let map = object.entry(known.name).or_insert_with(|| json!({}));
            let (mut key, mut value) = (String::new(), None);
            for (number, field) in fields_of(bytes)? {
                match (number, &field) {
                    (1, Field::Bytes(bytes)) => key = text(bytes),
                    (2, _) => value = single(item, &field, true, depth)?,
                    _ => {}
                }
            }
            if let Some(map) = map.as_object_mut() {
                map.insert(key, value.unwrap_or_else(|| json!("")));
            }
        } else if let Some(value) = single(known.kind, &field, known.keep_zero, depth)? {
            object.insert(known.name.to_owned(), value);
        }
    }
    Ok(object)
}

/// One value; `None` for a zero that is as good as absent.
fn single(kind: &str, field: &Field<'_>, keep_zero: bool, depth: usize) -> Result<Option<Value>, String> {
    Ok(match (kind, field) {
        ("i", Field::Number(number)) => (keep_zero || *number != 0).then(|| json!(number.cast_signed())),
        ("b", Field::Number(number)) => (keep_zero || *number != 0).then(|| json!(*number != 0)),
        ("s", Field::Bytes(bytes)) => (keep_zero || !bytes.is_empty()).then(|| json!(text(bytes))),
        ("y", Field::Bytes(bytes)) => {
            let encoded = serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec()));
            Some(encoded.map_err(|error| error.to_string())?)
        }
        ("t" | "u", Field::Bytes(bytes)) => timestamp(bytes, kind == "u")?,
        ("q", Field::Bytes(bytes)) => first_text(bytes, 1)?.map(Value::from),
        ("x", Field::Bytes(bytes)) => {
            let (mut is_text, mut number) = (false, 0);
            for (index, field) in fields_of(bytes)? {
                match (index, field) {
                    (1, Field::Number(kind)) => is_text = kind != 0,
                    (2, Field::Number(value)) => number = value.cast_signed(),
                    _ => {}
                }
            }
            Some(if is_text { json!(first_text(bytes, 3)?.unwrap_or_default()) } else { json!(number) })
        }
        ("j", Field::Bytes(bytes)) => first_text(bytes, 1)?.and_then(|text| serde_json::from_str(&text).ok()),
        (name, Field::Bytes(bytes)) if name.contains('.') => {
            Some(Value::Object(message(name, bytes, depth + 1)?))
        }
        _ => None,
    })
}

fn first_text(bytes: &[u8], wanted: u64) -> Result<Option<String>, String> {
    Ok(fields_of(bytes)?.into_iter().find_map(|(number, field)| match field {
        Field::Bytes(bytes) if number == wanted => Some(text(bytes)),
        _ => None,
    }))
}

fn timestamp(bytes: &[u8], micros: bool) -> Result<Option<Value>, String> {
    let (mut seconds, mut nanos) = (None, 0);
    for (number, field) in fields_of(bytes)? {
        match (number, field) {
            (1, Field::Number(value)) => seconds = Some(value.cast_signed()),
            (2, Field::Number(value)) => nanos = i32::try_from(value).unwrap_or(0),
            _ => {}
        }
    }
    // The zero time is written without seconds or as the year 1: both mean "none".
    let Some(at) = seconds.filter(|seconds| *seconds > 0).and_then(|s| jiff::Timestamp::new(s, nanos).ok())
    else {
        return Ok(None);
    };
    Ok(Some(json!(if micros {
        at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    } else {
        time::seconds(at)
    })))
}
