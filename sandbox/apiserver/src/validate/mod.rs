//! Validation of the essentials, in Kubernetes' words. Source: `pkg/apis/*/validation` and
//! `apimachinery/pkg/util/validation` of Kubernetes 1.34.

mod pods;

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::causes::{Cause, Causes};
use crate::kind::{Kind, Name};
use crate::meta::meta;
use crate::names::{self, LABEL, SERVICE_NAME, SUBDOMAIN, annotations, is_label, labels};
use crate::selectors::label_selector_matches;
use pods::{pod_spec, pod_update};

const PORT: &str = "must be between 1 and 65535, inclusive";
/// All the values of a ConfigMap or Secret together.
const MAX_CONFIG_BYTES: usize = 1024 * 1024;
const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Everything wrong with an object; `old` is what it replaces.
pub(crate) fn object(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Causes::default();
    metadata(kind, object, &mut causes);
    (kind.does.validate)(object, old, &mut causes);
    causes.into_list()
}

pub(crate) fn pod(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    pod_spec(&object["spec"], "spec", causes);
    if let Some(old) = old {
        pod_update(old, object, causes);
    }
}

pub(crate) fn disruption_budget(object: &Value, _: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    if spec["minAvailable"].is_null() || spec["maxUnavailable"].is_null() {
        return;
    }
    // As the Go struct is printed.
    let shown = format!(
        "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\
         \"UnhealthyPodEvictionPolicy\":{}}}",
        spec["minAvailable"], spec["selector"], spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]
    );
    causes.push(Cause {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {shown}: minAvailable and maxUnavailable cannot be both set"),
        field: "spec".to_owned(),
    });
}

pub(crate) fn lease(object: &Value, _: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
        let why = "must be greater than 0";
        causes.push(Cause::invalid("spec.leaseDurationSeconds", &spec["leaseDurationSeconds"], why));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|count| count < 0) {
        causes.push(Cause::invalid("spec.leaseTransitions", &spec["leaseTransitions"], NOT_NEGATIVE));
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

pub(crate) fn workload(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    if spec["replicas"].as_i64().unwrap_or(0) < 0 {
        causes.push(Cause::invalid("spec.replicas", &spec["replicas"], NOT_NEGATIVE));
    }
    let selector = &spec["selector"];
    let empty = ["matchLabels", "matchExpressions"].iter().all(|part| {
        selector[part].as_object().is_none_or(serde_json::Map::is_empty)
            && selector[part].as_array().is_none_or(Vec::is_empty)
    });
    let template_labels = &spec["template"]["metadata"]["labels"];
    if selector.is_null() {
        causes.push(Cause::required("spec.selector", ""));
    } else if empty {
        // A ReplicaSet's message names a deployment too.
        causes.push(Cause::invalid("spec.selector", selector, "empty selector is invalid for deployment"));
    }
    let well_formed = names::label_selector(selector, "spec.selector", causes);
    if !well_formed {
        causes.push(Cause::invalid("spec.selector", selector, "invalid label selector"));
    } else if selector.is_null() || !empty && !label_selector_matches(selector, template_labels) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", template_labels, why));
    }
    if let Some(old) = old
        && old["spec"]["selector"] != *selector
    {
        causes.push(Cause::invalid("spec.selector", selector, "field is immutable"));
    }
    labels(template_labels, "spec.template.metadata.labels", causes);
    let template = &spec["template"]["spec"];
    pod_spec(template, "spec.template.spec", causes);
    if template["restartPolicy"] != "Always" {
        causes.push(Cause::not_supported(
            "spec.template.spec.restartPolicy",
            &template["restartPolicy"],
            &["Always"],
        ));
    }
    let rolling = &spec["strategy"]["rollingUpdate"];
    if spec["strategy"]["type"] == "Recreate" && !rolling.is_null() {
        let why = "may not be specified when strategy `type` is 'Recreate'";
        causes.push(Cause::forbidden("spec.strategy.rollingUpdate", why));
    }
    let zero = |value: &Value| *value == json!(0) || *value == json!("0%");
    if zero(&rolling["maxSurge"]) && zero(&rolling["maxUnavailable"]) {
        causes.push(Cause::invalid(
            "spec.strategy.rollingUpdate.maxUnavailable",
            &rolling["maxUnavailable"],
            "may not be 0 when `maxSurge` is 0",
        ));
    }
    if let (Some(deadline), Some(ready)) =
        (spec["progressDeadlineSeconds"].as_i64(), spec["minReadySeconds"].as_i64().or(Some(0)))
        && deadline <= ready
    {
        causes.push(Cause::invalid(
            "spec.progressDeadlineSeconds",
            &spec["progressDeadlineSeconds"],
            "must be greater than minReadySeconds",
        ));
    }
}

pub(crate) fn service(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    if ports.is_empty() && spec["type"] != "ExternalName" && spec["clusterIP"] != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        if ports.len() > 1 && port["name"].as_str().unwrap_or("").is_empty() {
            causes.push(Cause::required(format!("spec.ports[{index}].name"), ""));
        }
        if !(1..=65_535).contains(&port["port"].as_i64().unwrap_or(0)) {
            causes.push(Cause::invalid(format!("spec.ports[{index}].port"), &port["port"], PORT));
        }
        port_reference(&port["targetPort"], format!("spec.ports[{index}].targetPort"), causes);
    }
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !types.contains(&spec["type"].as_str().unwrap_or("")) {
        causes.push(Cause::not_supported("spec.type", &spec["type"], &types));
    }
    let mut seen = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let key = (&port["protocol"], &port["port"]);
        if !seen.insert(key) {
            // As the Go struct of the key is printed.
            let (protocol, number) = key;
            causes.push(Cause {
                reason: "FieldValueDuplicate",
                message: format!(
                    "Duplicate value: \
                     {{\"Name\":\"\",\"Protocol\":{protocol},\"AppProtocol\":null,\"Port\":{number},\
                     \"TargetPort\":0,\"NodePort\":0}}"
                ),
                field: format!("spec.ports[{index}]"),
            });
        }
    }
    let address = |spec: &Value| spec["clusterIP"].as_str().unwrap_or("").to_owned();
    if let Some(old) = old.map(|old| &old["spec"])
        && spec["type"] != "ExternalName"
        && !address(old).is_empty()
        && address(old) != address(spec)
    {
        let shown = json!([address(spec)]);
        causes.push(Cause::invalid("spec.clusterIPs[0]", &shown, "may not change once set"));
    }
}

/// A port by number or by name.
fn port_reference(port: &Value, field: String, causes: &mut Causes) {
    match port {
        Value::String(name) => {
            causes.extend(port_name(name).iter().map(|why| Cause::invalid(field.as_str(), port, why)));
        }
        number if !(1..=65_535).contains(&number.as_i64().unwrap_or(0)) => {
            causes.push(Cause::invalid(field, number, PORT));
        }
        _ => {}
    }
}

/// What is wrong with the name of a port (RFC 6335).
fn port_name(name: &str) -> Vec<&'static str> {
    let mut problems = Vec::new();
    if name.len() > 15 {
        problems.push("must be no more than 15 characters");
    }
    if !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|c| c.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen");
    }
    problems
}

pub(crate) fn ingress(object: &Value, _: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    if spec["rules"].as_array().is_none_or(Vec::is_empty) && spec["defaultBackend"].is_null() {
        let why = "either `defaultBackend` or `rules` must be specified";
        causes.push(Cause::invalid("spec", &Value::Null, why));
    }
    for (index, rule) in spec["rules"].as_array().into_iter().flatten().enumerate() {
        let host = rule["host"].as_str().unwrap_or("");
        if !host.is_empty() && !host.trim_start_matches("*.").split('.').all(is_label) {
            causes.push(Cause::invalid(format!("spec.rules[{index}].host"), &rule["host"], SUBDOMAIN));
        }
        for (number, path) in rule["http"]["paths"].as_array().into_iter().flatten().enumerate() {
            let field = format!("spec.rules[{index}].http.paths[{number}]");
            let types = ["Exact", "ImplementationSpecific", "Prefix"];
            let given = path["pathType"].as_str().unwrap_or("");
            if given.is_empty() {
                causes.push(Cause::required(format!("{field}.pathType"), "pathType must be specified"));
                // Kubernetes looks no further either.
                continue;
            } else if !types.contains(&given) {
                causes.push(Cause::not_supported(format!("{field}.pathType"), &path["pathType"], &types));
            }
            if given != "ImplementationSpecific" && !path["path"].as_str().unwrap_or("").starts_with('/') {
                causes.push(Cause::invalid(
                    format!("{field}.path"),
                    &path["path"],
                    "must be an absolute path",
                ));
            }
            if path["backend"]["service"]["name"].as_str().unwrap_or("").is_empty()
                && path["backend"]["resource"].is_null()
            {
                causes.push(Cause::required(format!("{field}.backend.service.name"), ""));
            }
            let port = &path["backend"]["service"]["port"];
            if path["backend"]["service"].is_object() && port["name"].is_null() && port["number"].is_null() {
                let why = "port name or number is required";
                causes.push(Cause::required(format!("{field}.backend"), why));
            }
        }
    }
}

pub(crate) fn autoscaler(object: &Value, _: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    let (least, most) =
        (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(0));
    if least < 1 {
        causes.push(Cause::invalid(
            "spec.minReplicas",
            &spec["minReplicas"],
            "must be greater than or equal to 1",
        ));
    }
    if most == 0 {
        causes.push(Cause::required("spec.maxReplicas", "must be set and greater than 0"));
    } else if most < 0 {
        causes.push(Cause::invalid("spec.maxReplicas", &spec["maxReplicas"], "must be greater than 0"));
    } else if most < least {
        let why = "must be greater than or equal to `minReplicas`";
        causes.push(Cause::invalid("spec.maxReplicas", &spec["maxReplicas"], why));
    }
    for field in ["kind", "name"] {
        if spec["scaleTargetRef"][field].as_str().unwrap_or("").is_empty() {
            causes.push(Cause::required(format!("spec.scaleTargetRef.{field}"), ""));
        }
    }
    let version = &spec["scaleTargetRef"]["apiVersion"];
    if !version.as_str().is_some_and(|version| version.contains('/')) {
        let shown = version.as_str().unwrap_or("");
        causes.push(Cause::invalid(
            "spec.scaleTargetRef.apiVersion",
            &json!(shown),
            "apiVersion must specify API group",
        ));
    }
    let external = |metric: &Value| metric["type"] == "Object" || metric["type"] == "External";
    if least == 0 && !spec["metrics"].as_array().is_some_and(|metrics| metrics.iter().any(external)) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        causes.push(Cause::forbidden("spec.metrics", why));
    }
}
