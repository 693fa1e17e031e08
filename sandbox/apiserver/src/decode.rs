//! Decoding through the typed API, which finds unknown fields and wrong types.

use k8s_openapi::api;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::request::FieldValidation;
use crate::status::ApiError;

/// The object as its type keeps it: without nulls and unknown fields. Those are errors or warnings, as asked.
pub(crate) fn decode(
    kind: &Kind,
    object: &Value,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, ApiError> {
    let decoded = normalize(kind, object)?;
    if validation != FieldValidation::Ignore {
        let mut unknown = Vec::new();
        find_unknown(object, &decoded, &mut String::new(), &mut unknown);
        let texts: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
        if validation == FieldValidation::Strict && !texts.is_empty() {
            return Err(undecodable(kind, &format!("strict decoding error: {}", texts.join(", "))));
        }
        warnings.extend(texts);
    }
    Ok(decoded)
}

/// The object as its type keeps it.
pub(crate) fn normalize(kind: &Kind, object: &Value) -> Result<Value, ApiError> {
    let mut object = object.clone();
    quantities_as_text(&mut object);
    if kind.is("", "secrets") {
        encode_string_data(&mut object);
    }
    round_trip(kind, &object).map_err(|why| undecodable(kind, &why))
}

fn undecodable(kind: &Kind, why: &str) -> ApiError {
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
        word_as_go(&path, &error.inner().to_string())
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

/// Paths of fields that the type does not know. A null is no field.
fn find_unknown(given: &Value, kept: &Value, path: &mut String, unknown: &mut Vec<String>) {
    let length = path.len();
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (key, value) in given {
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

/// A quantity may be written as a number (`cpu: 2`); it is kept as text.
fn quantities_as_text(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let quantities =
                    ["limits", "requests", "capacity", "allocatable", "overhead"].contains(&key.as_str());
                match value {
                    Value::Object(map) if quantities => {
                        for quantity in map.values_mut().filter(|quantity| quantity.is_number()) {
                            *quantity = json!(quantity.to_string());
                        }
                    }
                    number
                        if number.is_number()
                            && ["averageValue", "sizeLimit", "divisor"].contains(&key.as_str()) =>
                    {
                        *number = json!(number.to_string());
                    }
                    other => quantities_as_text(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(quantities_as_text),
        _ => {}
    }
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
