//! Decoding through the typed API, which finds unknown fields and wrong types.

use k8s_openapi::api;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::kinds::Kind;
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
    if kind.is("", "secrets") {
        encode_string_data(&mut object);
    }
    let kept = round_trip(kind, &object)?;
    let mut decoded = kept.clone();
    presence::complete(kind, &object, &mut decoded);
    Ok((decoded, kept))
}

/// The answer to a body that can't be decoded.
pub(crate) fn refused(kind: &Kind, why: &str) -> ApiError {
    let (name, version) = (kind.kind, kind.version);
    ApiError::bad_request(format!("{name} in version \"{version}\" cannot be handled as a {name}: {why}"))
}

fn round_trip(kind: &Kind, object: &Value) -> Result<Value, String> {
    use api::{
        admissionregistration, apps, autoscaling, coordination, core, discovery, events, networking, policy,
        rbac,
    };
    use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;
    match (kind.group, kind.version, kind.kind) {
        ("", _, "Namespace") => through::<core::v1::Namespace>(object),
        ("", _, "Node") => through::<core::v1::Node>(object),
        ("", _, "Pod") => through::<core::v1::Pod>(object),
        ("", _, "ConfigMap") => through::<core::v1::ConfigMap>(object),
        ("", _, "Secret") => through::<core::v1::Secret>(object),
        ("", _, "Service") => through::<core::v1::Service>(object),
        ("", _, "ServiceAccount") => through::<core::v1::ServiceAccount>(object),
        ("", _, "Event") => through::<core::v1::Event>(object),
        ("", _, "Endpoints") => through::<core::v1::Endpoints>(object),
        ("apps", _, "Deployment") => through::<apps::v1::Deployment>(object),
        ("apps", _, "ReplicaSet") => through::<apps::v1::ReplicaSet>(object),
        ("autoscaling", "v2", _) => through::<autoscaling::v2::HorizontalPodAutoscaler>(object),
        ("autoscaling", _, _) => through::<autoscaling::v1::HorizontalPodAutoscaler>(object),
        ("discovery.k8s.io", _, _) => through::<discovery::v1::EndpointSlice>(object),
        ("coordination.k8s.io", _, _) => through::<coordination::v1::Lease>(object),
        ("networking.k8s.io", _, "Ingress") => through::<networking::v1::Ingress>(object),
        ("networking.k8s.io", _, "IngressClass") => through::<networking::v1::IngressClass>(object),
        ("networking.k8s.io", _, _) => through::<networking::v1::NetworkPolicy>(object),
        ("policy", _, _) => through::<policy::v1::PodDisruptionBudget>(object),
        ("events.k8s.io", _, _) => through::<events::v1::Event>(object),
        ("apiregistration.k8s.io", _, _) => through::<apiregistration::v1::APIService>(object),
        ("admissionregistration.k8s.io", _, _) => {
            through::<admissionregistration::v1::ValidatingWebhookConfiguration>(object)
        }
        (_, _, "Role") => through::<rbac::v1::Role>(object),
        (_, _, "RoleBinding") => through::<rbac::v1::RoleBinding>(object),
        (_, _, "ClusterRole") => through::<rbac::v1::ClusterRole>(object),
        (_, _, "ClusterRoleBinding") => through::<rbac::v1::ClusterRoleBinding>(object),
        _ => Ok(object.clone()),
    }
}

fn through<T: Serialize + DeserializeOwned>(object: &Value) -> Result<Value, String> {
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

/// Times with microseconds are read with all six digits or not at all.
fn check_micro_times(kind: &Kind, object: &Value) -> Result<(), String> {
    let paths: &[&str] = match (kind.group, kind.kind) {
        ("coordination.k8s.io", "Lease") => &["/spec/acquireTime", "/spec/renewTime"],
        ("" | "events.k8s.io", "Event") => &["/eventTime", "/series/lastObservedTime"],
        _ => &[],
    };
    for text in paths.iter().filter_map(|path| object.pointer(path)?.as_str()) {
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

/// A Secret's `stringData` is written into `data`, in base64.
fn encode_string_data(secret: &mut Value) {
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
