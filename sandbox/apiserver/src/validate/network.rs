//! Services, Ingresses and network policies.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::ports;
use crate::causes::{Cause, Causes};
use crate::names::{SUBDOMAIN, is_label};

pub(crate) fn service(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    let list = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    if list.is_empty() && spec["type"] != "ExternalName" && spec["clusterIP"] != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (index, port) in list.iter().enumerate() {
        if list.len() > 1 && port["name"].as_str().unwrap_or("").is_empty() {
            causes.push(Cause::required(format!("spec.ports[{index}].name"), ""));
        }
        ports::number(&port["port"], format!("spec.ports[{index}].port"), causes);
        ports::reference(&port["targetPort"], format!("spec.ports[{index}].targetPort"), causes);
    }
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !types.contains(&spec["type"].as_str().unwrap_or("")) {
        causes.push(Cause::not_supported("spec.type", &spec["type"], &types));
    }
    let mut seen = HashSet::new();
    for (index, port) in list.iter().enumerate() {
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
    let seconds = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    if seconds.as_i64().is_some_and(|seconds| !(1..=86_400).contains(&seconds)) {
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        causes.push(Cause::invalid(field, seconds, "must be greater than 0 and less than 86400"));
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

pub(crate) fn ingress(object: &Value, _: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    if spec["rules"].as_array().is_none_or(Vec::is_empty) && spec["defaultBackend"].is_null() {
        let why = "either `defaultBackend` or `rules` must be specified";
        causes.push(Cause::invalid("spec", &Value::Null, why));
    }
    if !spec["defaultBackend"].is_null() {
        backend(&spec["defaultBackend"], "spec.defaultBackend", causes);
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
            backend(&path["backend"], &format!("{field}.backend"), causes);
        }
    }
}

/// Where an Ingress sends requests.
fn backend(backend: &Value, path: &str, causes: &mut Causes) {
    let service = &backend["service"];
    if service["name"].as_str().unwrap_or("").is_empty() && backend["resource"].is_null() {
        causes.push(Cause::required(format!("{path}.service.name"), ""));
    }
    if !service.is_object() {
        return;
    }
    let (name, number) = (&service["port"]["name"], &service["port"]["number"]);
    match (name.as_str().filter(|name| !name.is_empty()), number.as_i64().filter(|number| *number != 0)) {
        (None, None) => causes.push(Cause::required(path, "port name or number is required")),
        (Some(_), Some(_)) => {
            causes.push(Cause::invalid(path, &json!(""), "cannot set both port name & port number"));
        }
        (Some(_), None) => ports::reference(name, format!("{path}.service.port.name"), causes),
        (None, Some(_)) => ports::number(number, format!("{path}.service.port.number"), causes),
    }
}

/// The ports of addresses that somebody else keeps.
pub(crate) fn endpoints(object: &Value, _: Option<&Value>, causes: &mut Causes) {
    for (number, subset) in object["subsets"].as_array().into_iter().flatten().enumerate() {
        for (index, port) in subset["ports"].as_array().into_iter().flatten().enumerate() {
            let field = format!("subsets[{number}].ports[{index}].port");
            ports::number(&port["port"], field, causes);
        }
    }
}

/// The ports of a network policy's rules.
pub(crate) fn network_policy(object: &Value, _: Option<&Value>, causes: &mut Causes) {
    let spec = &object["spec"];
    for direction in ["ingress", "egress"] {
        for (rule_index, rule) in spec[direction].as_array().into_iter().flatten().enumerate() {
            for (index, port) in rule["ports"].as_array().into_iter().flatten().enumerate() {
                let field = format!("spec.{direction}[{rule_index}].ports[{index}]");
                let (first, last) = (&port["port"], &port["endPort"]);
                if !first.is_null() {
                    ports::reference(first, format!("{field}.port"), causes);
                }
                let end = format!("{field}.endPort");
                match (first, last.as_i64()) {
                    (_, None) => {}
                    (Value::Null, Some(_)) => {
                        causes.push(Cause::invalid(
                            end,
                            last,
                            "may not be specified when `port` is not specified",
                        ));
                    }
                    (Value::String(_), Some(_)) => {
                        causes.push(Cause::invalid(
                            end,
                            last,
                            "may not be specified when `port` is non-numeric",
                        ));
                    }
                    (first, Some(number)) if first.as_i64().is_some_and(|first| number < first) => {
                        // Kubernetes shows the first port.
                        causes.push(Cause::invalid(end, first, "must be greater than or equal to `port`"));
                    }
                    _ => ports::number(last, end, causes),
                }
            }
        }
    }
}
