//! Validation of the essentials, in Kubernetes' words. Source: `pkg/apis/*/validation` and
//! `apimachinery/pkg/util/validation` of Kubernetes 1.34.

mod autoscaler;
mod containers;
mod network;
mod numbers;
mod pods;
mod ports;
mod workloads;

use serde_json::{Value, json};

use crate::causes::{Cause, Causes};
use crate::kind::{Kind, Name};
use crate::meta::meta;
use crate::names::{self, LABEL, SERVICE_NAME, SUBDOMAIN, annotations, is_label, labels};

pub(crate) use autoscaler::autoscaler;
pub(crate) use network::{endpoints, ingress, network_policy, service};
pub(crate) use pods::pod;
pub(crate) use workloads::{disruption_budget, workload};

/// All the values of a ConfigMap or Secret together.
const MAX_CONFIG_BYTES: usize = 1024 * 1024;

/// Everything wrong with an object; `old` is what it replaces.
pub(crate) fn object(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Causes::default();
    metadata(kind, object, &mut causes);
    (kind.does.validate)(object, old, &mut causes);
    causes.into_list()
}

pub(crate) fn lease(object: &Value, _: Option<&Value>, causes: &mut Causes) {
    numbers::positive(&object["spec"], "spec", &["leaseDurationSeconds"], causes);
    numbers::not_negative(&object["spec"], "spec", &["leaseTransitions"], causes);
}

pub(crate) fn api_service(object: &Value, _: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
        let priority = spec[field].as_i64().unwrap_or(0);
        if !(1..=most).contains(&priority) {
            let why = format!("must be positive and less than {most}");
            causes.push(Cause::invalid(format!("spec.{field}"), &json!(priority), &why));
        }
    }
    ports::of_service(&spec["service"], "spec.service", causes);
}

pub(crate) fn webhooks(object: &Value, _: Option<&Value>, causes: &mut Causes) {
    for (index, webhook) in object["webhooks"].as_array().into_iter().flatten().enumerate() {
        let seconds = &webhook["timeoutSeconds"];
        if seconds.as_i64().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
            let why = "the timeout value must be between 1 and 30 seconds";
            causes.push(Cause::invalid(format!("webhooks[{index}].timeoutSeconds"), seconds, why));
        }
        let service = &webhook["clientConfig"]["service"];
        ports::of_service(service, &format!("webhooks[{index}].clientConfig.service"), causes);
    }
}

pub(crate) fn config_map(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    let texts = object["data"].as_object().into_iter().flatten();
    let bytes: usize = texts.map(|(_, text)| text.as_str().unwrap_or("").len()).sum();
    config_data(object, bytes + encoded_bytes(&object["binaryData"]), Cause::WHOLE, old, causes);
}

pub(crate) fn secret(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    config_data(object, encoded_bytes(&object["data"]), "data", old, causes);
}

/// The keys of a ConfigMap or Secret, which become names of files; its size, and that it stays as it is where it says
/// so.
fn config_data(object: &Value, bytes: usize, whole: &str, old: Option<&Value>, causes: &mut Causes) {
    for field in ["data", "binaryData"] {
        for key in object[field].as_object().into_iter().flatten().map(|(key, _)| key) {
            if !names::is_config_key(key) {
                causes.push(Cause::invalid(format!("{field}[{key}]"), &json!(key), names::CONFIG_KEY));
            }
        }
    }
    if bytes > MAX_CONFIG_BYTES {
        causes.push(Cause::too_long(whole, MAX_CONFIG_BYTES));
    }
    if let Some(old) = old.filter(|old| old["immutable"] == true)
        && (old["data"] != object["data"] || object["immutable"] != true)
    {
        causes.push(Cause::forbidden("data", "field is immutable when `immutable` is set"));
    }
}

/// What the values of a map hold, which are in base64.
fn encoded_bytes(map: &Value) -> usize {
    let values = map.as_object().into_iter().flatten();
    values.map(|(_, value)| decoded_len(value.as_str().unwrap_or(""))).sum()
}

/// How many bytes base64 stands for.
fn decoded_len(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

fn metadata(kind: &Kind, object: &Value, causes: &mut Causes) {
    let name = meta(object, "name");
    let shown = json!(name);
    let is_digit_first = name.starts_with(|c: char| c.is_ascii_digit());
    let (is_well_formed, limit, rule) = match kind.does.name {
        Name::Service => (is_label(name) && !is_digit_first, 63, SERVICE_NAME),
        Name::Label => (is_label(name), 63, LABEL),
        Name::Subdomain => (name.split('.').all(is_label), 253, SUBDOMAIN),
        Name::Any => (true, 253, ""),
    };
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if !is_well_formed {
        causes.push(Cause::invalid("metadata.name", &shown, rule));
    }
    if name.len() > limit {
        causes.push(Cause::invalid(
            "metadata.name",
            &shown,
            &format!("must be no more than {limit} characters"),
        ));
    }
    labels(&object["metadata"]["labels"], "metadata.labels", causes);
    annotations(&object["metadata"]["annotations"], causes);
    for owner in object["metadata"]["ownerReferences"].as_array().into_iter().flatten() {
        for (field, what) in [("apiVersion", "version "), ("kind", ""), ("name", ""), ("uid", "")] {
            if owner[field].as_str().unwrap_or("").is_empty() {
                let path = format!("metadata.ownerReferences.{field}");
                causes.push(Cause::invalid(path, &json!(""), &format!("{what}must not be empty")));
            }
        }
    }
    for (index, finalizer) in object["metadata"]["finalizers"].as_array().into_iter().flatten().enumerate() {
        let name = finalizer.as_str().unwrap_or("");
        if !name.contains('/') && !["orphan", "foregroundDeletion", "kubernetes"].contains(&name) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid(format!("metadata.finalizers[{index}]"), finalizer, why));
        }
    }
}
