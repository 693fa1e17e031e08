//! Through the type and back: without nulls and unknown fields, or what can't be decoded, in the words of Go's decoder.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// As `T` keeps it.
pub(crate) fn through<T: Serialize + DeserializeOwned>(object: &Value) -> Result<Value, String> {
    let typed: T = serde_path_to_error::deserialize(object).map_err(|error| {
        let path = error.path().to_string();
        word_as_go(&go_field(object, &path), &error.inner().to_string())
    })?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// `invalid type: string "x", expected i32` in the words of Go's decoder.
fn word_as_go(path: &str, text: &str) -> String {
    let Some((found, expected)) =
        text.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    else {
        return format!("{path}: {text}");
    };
    let found = match found.split(' ').next().unwrap_or("") {
        "string" => "string",
        "integer" | "floating" => "number",
        "boolean" => "bool",
        "sequence" => "array",
        "map" => "object",
        other => other,
    };
    let expected = match expected {
        "i32" => "int32",
        "i64" => "int64",
        "a boolean" => "bool",
        "a string" => "string",
        "a sequence" => "[]string",
        "a map" => "map[string]string",
        other => other,
    };
    format!("json: cannot unmarshal {found} into Go struct field {path} of type {expected}")
}

/// A path as Go's decoder names it: the struct that has the field, then the fields from the root, without the indices
/// of lists and the keys of maps.
fn go_field(object: &Value, path: &str) -> String {
    let kind = object["kind"].as_str().unwrap_or("");
    let mut fields: Vec<&str> = path.split('.').map(|step| step.split('[').next().unwrap_or(step)).collect();
    const MAPS: [&str; 9] = [
        "data",
        "binaryData",
        "stringData",
        "labels",
        "annotations",
        "matchLabels",
        "nodeSelector",
        "limits",
        "requests",
    ];
    if let Some(map) = fields.iter().position(|field| MAPS.contains(field)) {
        fields.truncate(map + 1);
    }
    let owner = match fields.as_slice() {
        [_] => kind.to_owned(),
        [.., "template", "spec", _] => "PodSpec".to_owned(),
        [.., "spec", _] => format!("{kind}Spec"),
        [.., "status", _] => format!("{kind}Status"),
        [.., "metadata", _] => "ObjectMeta".to_owned(),
        [.., "template", _] => "PodTemplateSpec".to_owned(),
        [.., "containers" | "initContainers", _] => "Container".to_owned(),
        [.., "env", _] => "EnvVar".to_owned(),
        [.., "containers" | "initContainers", "ports", _] => "ContainerPort".to_owned(),
        [.., "ports", _] => format!("{kind}Port"),
        [.., "resources", _] => "ResourceRequirements".to_owned(),
        [.., "selector", _] => "LabelSelector".to_owned(),
        [.., "livenessProbe" | "readinessProbe" | "startupProbe", _] => "Probe".to_owned(),
        _ => kind.to_owned(),
    };
    format!("{owner}.{}", fields.join("."))
}

/// A Secret's `stringData` is written into `data`, in base64.
pub(crate) fn encode_string_data(secret: &mut Value) {
    let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|fields| fields.remove("stringData"))
    else {
        return;
    };
    for (key, text) in texts {
        let bytes = k8s_openapi::ByteString(text.as_str().unwrap_or("").as_bytes().to_vec());
        let data = secret.as_object_mut().map(|fields| fields.entry("data").or_insert_with(|| json!({})));
        if let (Ok(encoded), Some(Value::Object(data))) = (serde_json::to_value(bytes), data) {
            data.insert(key, encoded);
        }
    }
}
