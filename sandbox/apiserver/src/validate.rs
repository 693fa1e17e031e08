//! Validation of the essentials, in Kubernetes' words. Source: `pkg/apis/*/validation` and
//! `apimachinery/pkg/util/validation` of Kubernetes 1.34.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::selectors::label_selector_matches;
use crate::status::Cause;
use crate::store::meta;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SERVICE_NAME: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
    alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
    validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
    '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
    used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Everything wrong with an object; `old` is what it replaces.
pub(crate) fn object(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    metadata(kind, object, &mut causes);
    let spec = &object["spec"];
    match (kind.group, kind.kind) {
        ("", "Pod") => {
            pod_spec(spec, "spec", &mut causes);
            if let Some(old) = old {
                pod_update(old, object, &mut causes);
            }
        }
        ("apps", _) => workload(object, old, &mut causes),
        ("", "Service") => service(object, &mut causes),
        ("networking.k8s.io", "Ingress") => ingress(spec, &mut causes),
        ("autoscaling", _) => autoscaler(spec, &mut causes),
        ("policy", _) if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() => {
            let shown =
                json!({"minAvailable": spec["minAvailable"], "maxUnavailable": spec["maxUnavailable"]});
            causes.push(Cause::invalid("spec", &shown, "minAvailable and maxUnavailable cannot be both set"));
        }
        ("", "ConfigMap" | "Secret") => {
            if let Some(old) = old.filter(|old| old["immutable"] == true)
                && (old["data"] != object["data"] || object["immutable"] != true)
            {
                causes.push(Cause::forbidden("data", "field is immutable when `immutable` is set"));
            }
        }
        _ => {}
    }
    causes
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.iter().all(|c| alphanumeric(*c) || *c == b'-')
        && bytes.first().is_some_and(|c| alphanumeric(*c))
        && bytes.last().is_some_and(|c| alphanumeric(*c))
}

fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.is_empty()
        || bytes.len() <= 63
            && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

fn metadata(kind: &Kind, object: &Value, causes: &mut Vec<Cause>) {
    let name = meta(object, "name");
    let shown = json!(name);
    let rbac = kind.group.starts_with("rbac");
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if kind.is("", "services") {
        if !is_label(name) || name.starts_with(|c: char| c.is_ascii_digit()) {
            causes.push(Cause::invalid("metadata.name", &shown, SERVICE_NAME));
        }
    } else if kind.is("", "namespaces") {
        if !is_label(name) {
            causes.push(Cause::invalid("metadata.name", &shown, LABEL));
        }
    } else if !rbac && !name.split('.').all(is_label) {
        causes.push(Cause::invalid("metadata.name", &shown, SUBDOMAIN));
    }
    let limit = if kind.is("", "namespaces") || kind.is("", "services") { 63 } else { 253 };
    if name.len() > limit {
        causes.push(Cause::invalid(
            "metadata.name",
            &shown,
            &format!("must be no more than {limit} characters"),
        ));
    }
    labels(&object["metadata"]["labels"], "metadata.labels", causes);
}

fn labels(labels: &Value, field: &str, causes: &mut Vec<Cause>) {
    for value in labels.as_object().into_iter().flatten().map(|(_, value)| value) {
        if !value.as_str().is_some_and(is_label_value) {
            causes.push(Cause::invalid(field, value, LABEL_VALUE));
        }
    }
}

fn workload(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if spec["replicas"].as_i64().unwrap_or(0) < 0 {
        causes.push(Cause::invalid("spec.replicas", &spec["replicas"], "must be greater than or equal to 0"));
    }
    let selector = &spec["selector"];
    let empty = ["matchLabels", "matchExpressions"].iter().all(|part| {
        selector[part].as_object().is_none_or(serde_json::Map::is_empty)
            && selector[part].as_array().is_none_or(Vec::is_empty)
    });
    let template_labels = &spec["template"]["metadata"]["labels"];
    if empty {
        causes.push(Cause::required("spec.selector", ""));
    } else if !label_selector_matches(selector, template_labels) {
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

fn pod_spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let containers = spec["containers"].as_array().map_or(&[][..], Vec::as_slice);
    if containers.is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let volumes: BTreeSet<&str> = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|volume| volume["name"].as_str())
        .collect();
    let mut names = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}.{list}[{index}]");
            let name = container["name"].as_str().unwrap_or("");
            if name.is_empty() {
                causes.push(Cause::required(format!("{path}.name"), ""));
            } else if !is_label(name) {
                causes.push(Cause::invalid(format!("{path}.name"), &container["name"], LABEL));
            } else if !names.insert(name) {
                causes.push(Cause::duplicate(format!("{path}.name"), &container["name"]));
            }
            one_container(container, &path, &volumes, causes);
        }
    }
    if spec["terminationGracePeriodSeconds"].as_i64().unwrap_or(0) < 0 {
        causes.push(Cause::invalid(
            format!("{path}.terminationGracePeriodSeconds"),
            &spec["terminationGracePeriodSeconds"],
            "must be greater than or equal to 0",
        ));
    }
    let policies = ["Always", "OnFailure", "Never"];
    if !policies.contains(&spec["restartPolicy"].as_str().unwrap_or("")) {
        causes.push(Cause::not_supported(format!("{path}.restartPolicy"), &spec["restartPolicy"], &policies));
    }
}

fn one_container(container: &Value, path: &str, volumes: &BTreeSet<&str>, causes: &mut Vec<Cause>) {
    if container["image"].as_str().unwrap_or("").is_empty() {
        causes.push(Cause::required(format!("{path}.image"), ""));
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    if !policies.contains(&container["imagePullPolicy"].as_str().unwrap_or("")) {
        let field = format!("{path}.imagePullPolicy");
        causes.push(Cause::not_supported(field, &container["imagePullPolicy"], &policies));
    }
    for (index, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
        if !(1..=65_535).contains(&port["containerPort"].as_i64().unwrap_or(0)) {
            let field = format!("{path}.ports[{index}].containerPort");
            causes.push(Cause::invalid(
                field,
                &port["containerPort"],
                "must be between 1 and 65535, inclusive",
            ));
        }
    }
    for (index, variable) in container["env"].as_array().into_iter().flatten().enumerate() {
        if variable["name"].as_str().unwrap_or("").is_empty() {
            causes.push(Cause::required(format!("{path}.env[{index}].name"), ""));
        }
    }
    for (index, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
        let name = mount["name"].as_str().unwrap_or("");
        if !volumes.contains(name) {
            causes.push(Cause {
                reason: "FieldValueNotFound",
                message: format!("Not found: \"{name}\""),
                field: format!("{path}.volumeMounts[{index}].name"),
            });
        }
    }
    for what in ["limits", "requests"] {
        for (resource, amount) in container["resources"][what].as_object().into_iter().flatten() {
            let field = format!("{path}.resources.{what}[{resource}]");
            match amount.as_str().and_then(quantity::value) {
                None => causes.push(Cause::invalid(field, amount, QUANTITY)),
                Some(number) if number < 0.0 => {
                    causes.push(Cause::invalid(field, amount, "must be greater than or equal to 0"));
                }
                Some(number) => {
                    let limit = &container["resources"]["limits"][resource];
                    if what == "requests"
                        && let Some(most) = limit.as_str().and_then(quantity::value)
                        && number > most
                    {
                        let shown = limit.as_str().unwrap_or("");
                        let why = format!("must be less than or equal to {resource} limit of {shown}");
                        causes.push(Cause::invalid(format!("{path}.resources.requests"), amount, &why));
                    }
                }
            }
        }
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let Some(given) = container.get(probe) else { continue };
        let path = format!("{path}.{probe}");
        if ["httpGet", "exec", "tcpSocket", "grpc"].iter().all(|handler| given.get(*handler).is_none()) {
            causes.push(Cause::required(path.clone(), "must specify a handler type"));
        }
        if probe != "readinessProbe" && given["successThreshold"].as_i64().is_some_and(|count| count != 1) {
            causes.push(Cause::invalid(
                format!("{path}.successThreshold"),
                &given["successThreshold"],
                "must be 1",
            ));
        }
    }
}

/// A pod's spec is fixed once it exists, except the images and a few more.
fn pod_update(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.remove("activeDeadlineSeconds");
            fields.remove("tolerations");
            fields.remove("terminationGracePeriodSeconds");
            if old["spec"]["nodeName"].as_str().unwrap_or("").is_empty() {
                fields.remove("nodeName");
                fields.remove("nodeSelector");
                fields.remove("schedulingGates");
            }
        }
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                container["image"] = Value::Null;
            }
        }
        spec
    };
    if fixed(old) != fixed(new) {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
             existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
             previously negative)",
        ));
    }
}

fn service(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !types.contains(&spec["type"].as_str().unwrap_or("")) {
        causes.push(Cause::not_supported("spec.type", &spec["type"], &types));
    }
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    if ports.is_empty() && spec["type"] != "ExternalName" && spec["clusterIP"] != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        if !(1..=65_535).contains(&port["port"].as_i64().unwrap_or(0)) {
            let field = format!("spec.ports[{index}].port");
            causes.push(Cause::invalid(field, &port["port"], "must be between 1 and 65535, inclusive"));
        }
        if ports.len() > 1 && port["name"].as_str().unwrap_or("").is_empty() {
            causes.push(Cause::required(format!("spec.ports[{index}].name"), ""));
        }
    }
}

fn ingress(spec: &Value, causes: &mut Vec<Cause>) {
    if spec["rules"].as_array().is_none_or(Vec::is_empty) && spec["defaultBackend"].is_null() {
        let why = "either `defaultBackend` or `rules` must be specified";
        causes.push(Cause::invalid("spec", &json!([]), why));
    }
    for (index, rule) in spec["rules"].as_array().into_iter().flatten().enumerate() {
        for (number, path) in rule["http"]["paths"].as_array().into_iter().flatten().enumerate() {
            let field = format!("spec.rules[{index}].http.paths[{number}]");
            let types = ["Exact", "ImplementationSpecific", "Prefix"];
            let given = path["pathType"].as_str().unwrap_or("");
            if given.is_empty() {
                causes.push(Cause::required(format!("{field}.pathType"), "pathType must be specified"));
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
        }
    }
}

fn autoscaler(spec: &Value, causes: &mut Vec<Cause>) {
    let (least, most) =
        (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(0));
    if most < 1 {
        causes.push(Cause::invalid("spec.maxReplicas", &spec["maxReplicas"], "must be greater than 0"));
    } else if most < least {
        let why = "must be greater than or equal to `minReplicas`";
        causes.push(Cause::invalid("spec.maxReplicas", &spec["maxReplicas"], why));
    }
    if least < 1 {
        let why = "must be greater than or equal to 1";
        causes.push(Cause::invalid("spec.minReplicas", &spec["minReplicas"], why));
    }
    for field in ["kind", "name"] {
        if spec["scaleTargetRef"][field].as_str().unwrap_or("").is_empty() {
            causes.push(Cause::required(format!("spec.scaleTargetRef.{field}"), ""));
        }
    }
}
