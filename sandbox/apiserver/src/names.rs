//! What names, labels and their keys may look like.

use serde_json::{Value, json};

use crate::causes::{Cause, Causes};

pub(super) const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                                    characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub(super) const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
                                characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation \
    is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
pub(super) const SERVICE_NAME: &str = "a DNS-1035 label must consist of lower case alphanumeric characters \
                                       or '-', start with an \
    alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used \
    for \
    validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
pub(super) const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
                                      characters, '-', '_' or \
    '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or \
    '12345', regex \
    used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
pub(super) const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' \
                                     or '.' (e.g. \
    'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const KEY: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                   alphanumeric \
    character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// All annotations together, their keys included.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

pub(super) fn is_label(text: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.iter().all(|c| alphanumeric(*c) || *c == b'-')
        && bytes.first().is_some_and(|c| alphanumeric(*c))
        && bytes.last().is_some_and(|c| alphanumeric(*c))
}

/// A key of a ConfigMap or Secret, which becomes the name of a file.
pub(super) fn is_config_key(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 253
        && ![".", ".."].contains(&key)
        && key.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
}

fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.is_empty()
        || bytes.len() <= 63
            && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

/// What is wrong with the key of a label or annotation, `example.com/name` or `name`; nothing when it is well formed.
pub(crate) fn key_problems(key: &str) -> Vec<String> {
    let (prefix, name) = match key.split('/').collect::<Vec<_>>().as_slice() {
        [name] => (None, *name),
        [prefix, name] => (Some(*prefix), *name),
        _ => {
            return vec![format!(
                "a qualified name {KEY} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            )];
        }
    };
    let mut problems = Vec::new();
    match prefix {
        Some("") => problems.push("prefix part must be non-empty".to_owned()),
        Some(prefix) if !prefix.split('.').all(is_label) => problems.push(format!("prefix part {SUBDOMAIN}")),
        _ => {}
    }
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        problems.push("name part must be no more than 63 bytes".to_owned());
    }
    if name.is_empty() || !is_label_value(&name[..name.len().min(63)]) {
        problems.push(format!("name part {KEY}"));
    }
    problems
}

/// Checks keys and values of labels.
pub(super) fn labels(labels: &Value, field: &str, causes: &mut Causes) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        keys(key, field, causes);
        if !value.as_str().is_some_and(is_label_value) {
            causes.push(Cause::invalid(field, value, LABEL_VALUE));
        }
    }
}

/// Checks a label selector; says whether it is well formed.
pub(super) fn label_selector(selector: &Value, field: &str, causes: &mut Causes) -> bool {
    let before = causes.count();
    labels(&selector["matchLabels"], &format!("{field}.matchLabels"), causes);
    for (index, expression) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        let field = format!("{field}.matchExpressions[{index}]");
        let values = expression["values"].as_array().map_or(&[][..], Vec::as_slice);
        match expression["operator"].as_str().unwrap_or("") {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(Cause::required(format!("{field}.values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(format!("{field}.values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let why = "not a valid selector operator";
                causes.push(Cause::invalid(format!("{field}.operator"), &expression["operator"], why));
            }
        }
        let key = expression["key"].as_str().unwrap_or("");
        causes.extend(
            key_problems(key).iter().map(|why| Cause::invalid(format!("{field}.key"), &json!(key), why)),
        );
        for (index, value) in values.iter().enumerate() {
            if !value.as_str().is_some_and(is_label_value) {
                causes.push(Cause::invalid(format!("{field}.values[{index}]"), value, LABEL_VALUE));
            }
        }
    }
    causes.count() == before
}

/// Checks the size of annotations, and their keys, which may be in capitals.
pub(super) fn annotations(annotations: &Value, causes: &mut Causes) {
    let mut bytes = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        bytes += key.len() + value.as_str().unwrap_or("").len();
    }
    for key in annotations.as_object().into_iter().flatten().map(|(key, _)| key) {
        let lower = key.to_lowercase();
        causes.extend(
            key_problems(&lower).iter().map(|why| Cause::invalid("metadata.annotations", &json!(key), why)),
        );
    }
    if bytes > MAX_ANNOTATION_BYTES {
        causes.push(Cause::too_long("metadata.annotations", MAX_ANNOTATION_BYTES));
    }
}

fn keys(key: &str, field: &str, causes: &mut Causes) {
    causes.extend(key_problems(key).iter().map(|why| Cause::invalid(field, &json!(key), why)));
}
