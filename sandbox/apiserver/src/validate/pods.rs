//! Pods, and the templates of pods.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{NOT_NEGATIVE, PORT, port_name, port_reference};
use crate::causes::{Cause, Causes};
use crate::names::{LABEL, is_label};
use crate::schema::VOLUME_SOURCES;

pub(super) fn pod_spec(spec: &Value, path: &str, causes: &mut Causes) {
    let containers = spec["containers"].as_array().map_or(&[][..], Vec::as_slice);
    if containers.is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut volumes = BTreeSet::new();
    for (index, volume) in spec["volumes"].as_array().into_iter().flatten().enumerate() {
        let field = format!("{path}.volumes[{index}].name");
        let name = volume["name"].as_str().unwrap_or("");
        if name.is_empty() {
            causes.push(Cause::required(field, ""));
        } else if !is_label(name) {
            causes.push(Cause::invalid(field, &volume["name"], LABEL));
        } else if !volumes.insert(name) {
            causes.push(Cause::duplicate(field, &volume["name"]));
        }
        let is_named = |name: &str| match name {
            // Misspelt where it is written.
            "downwardAPI" => "downwarAPI".to_owned(),
            "cephfs" => "cephFS".to_owned(),
            name => name.to_owned(),
        };
        let sources = VOLUME_SOURCES.into_iter().filter(|source| !volume[source].is_null());
        let size = volume["emptyDir"]["sizeLimit"].as_str().and_then(quantity::value);
        if size.is_some_and(|size| size < 0.0) {
            let field = format!("{path}.volumes[{index}].emptyDir.sizeLimit");
            causes.push(Cause::forbidden(field, "SizeLimit field must be a valid resource quantity"));
        }
        for source in sources.skip(1) {
            let field = format!("{path}.volumes[{index}].{}", is_named(source));
            causes.push(Cause::forbidden(field, "may not specify more than 1 volume type"));
        }
    }
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
            NOT_NEGATIVE,
        ));
    }
    let policies = ["Always", "OnFailure", "Never"];
    if !policies.contains(&spec["restartPolicy"].as_str().unwrap_or("")) {
        causes.push(Cause::not_supported(format!("{path}.restartPolicy"), &spec["restartPolicy"], &policies));
    }
}

fn one_container(container: &Value, path: &str, volumes: &BTreeSet<&str>, causes: &mut Causes) {
    if container["image"].as_str().unwrap_or("").is_empty() {
        causes.push(Cause::required(format!("{path}.image"), ""));
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    if !policies.contains(&container["imagePullPolicy"].as_str().unwrap_or("")) {
        let field = format!("{path}.imagePullPolicy");
        causes.push(Cause::not_supported(field, &container["imagePullPolicy"], &policies));
    }
    let mut port_names = BTreeSet::new();
    for (index, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
        let field = format!("{path}.ports[{index}]");
        let number = port["containerPort"].as_i64().unwrap_or(0);
        if let Some(name) = port["name"].as_str().filter(|name| !name.is_empty()) {
            let field = format!("{field}.name");
            let problems = port_name(name);
            if problems.is_empty() && !port_names.insert(name) {
                causes.push(Cause::duplicate(field, &port["name"]));
            } else {
                causes.extend(problems.iter().map(|why| Cause::invalid(field.as_str(), &port["name"], why)));
            }
        }
        if number == 0 {
            causes.push(Cause::required(format!("{field}.containerPort"), ""));
        } else if !(1..=65_535).contains(&number) {
            causes.push(Cause::invalid(format!("{field}.containerPort"), &port["containerPort"], PORT));
        }
    }
    for (index, variable) in container["env"].as_array().into_iter().flatten().enumerate() {
        if variable["name"].as_str().unwrap_or("").is_empty() {
            causes.push(Cause::required(format!("{path}.env[{index}].name"), ""));
        }
    }
    let mut mounted = BTreeSet::new();
    for (index, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
        let name = mount["name"].as_str().unwrap_or("");
        if name.is_empty() {
            causes.push(Cause::required(format!("{path}.volumeMounts[{index}].name"), ""));
        }
        if !volumes.contains(name) {
            causes.push(Cause {
                reason: "FieldValueNotFound",
                message: format!("Not found: \"{name}\""),
                field: format!("{path}.volumeMounts[{index}].name"),
            });
        }
        let field = format!("{path}.volumeMounts[{index}].mountPath");
        let place = mount["mountPath"].as_str().unwrap_or("");
        if place.is_empty() {
            causes.push(Cause::required(field.as_str(), ""));
        }
        if !mounted.insert(place) {
            causes.push(Cause::invalid(field, &place.into(), "must be unique"));
        }
    }
    for what in ["limits", "requests"] {
        for (resource, amount) in container["resources"][what].as_object().into_iter().flatten() {
            let field = format!("{path}.resources.{what}[{resource}]");
            match amount.as_str().and_then(quantity::value) {
                None => {}
                Some(number) if number < 0.0 => {
                    causes.push(Cause::invalid(field, amount, NOT_NEGATIVE));
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
    for hook in ["postStart", "preStop"] {
        if let Some(given) = container["lifecycle"].get(hook).filter(|given| !given.is_null()) {
            let handlers = ["exec", "httpGet", "tcpSocket", "sleep"];
            one_handler(given, &handlers, &format!("{path}.lifecycle.{hook}"), causes);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(given) = container.get(probe) {
            one_probe(given, probe, &format!("{path}.{probe}"), causes);
        }
    }
}

/// A probe or hook does one thing.
fn one_handler(given: &Value, handlers: &[&str], path: &str, causes: &mut Causes) {
    let mut found =
        handlers.iter().filter(|handler| given.get(handler).is_some_and(|found| !found.is_null()));
    if found.next().is_none() {
        causes.push(Cause::required(path, "must specify a handler type"));
    }
    for handler in found {
        causes
            .push(Cause::forbidden(format!("{path}.{handler}"), "may not specify more than 1 handler type"));
    }
}

fn one_probe(given: &Value, probe: &str, path: &str, causes: &mut Causes) {
    let has = |handler: &str| given.get(handler).is_some_and(|handler| !handler.is_null());
    if has("exec") && given["exec"]["command"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(format!("{path}.exec.command"), ""));
    }
    for handler in ["httpGet", "tcpSocket"].into_iter().filter(|handler| has(handler)) {
        port_reference(&given[handler]["port"], format!("{path}.{handler}.port"), causes);
    }
    one_handler(given, &["exec", "httpGet", "tcpSocket", "grpc"], path, causes);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        if given[field].as_i64().is_some_and(|value| value < 0) {
            causes.push(Cause::invalid(format!("{path}.{field}"), &given[field], NOT_NEGATIVE));
        }
    }
    if probe != "readinessProbe" && given["successThreshold"].as_i64().is_some_and(|count| count != 1) {
        causes.push(Cause::invalid(
            format!("{path}.successThreshold"),
            &given["successThreshold"],
            "must be 1",
        ));
    }
}

/// A pod's spec is fixed once it exists, except the images and a few more.
pub(super) fn pod_update(old: &Value, new: &Value, causes: &mut Causes) {
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.remove("activeDeadlineSeconds");
            fields.remove("tolerations");
            fields.remove("terminationGracePeriodSeconds");
            if old["spec"]["nodeName"].as_str().unwrap_or("").is_empty() {
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
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
             to \
             existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
             previously negative)",
        ));
    }
}
