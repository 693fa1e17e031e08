//! Containers of pods.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{numbers, ports};
use crate::causes::{Cause, Causes};

/// A container's part; `volumes` are the names of the pod's, `grace_seconds` is what it has to end in.
pub(super) fn container(
    container: &Value,
    path: &str,
    volumes: &BTreeSet<&str>,
    grace_seconds: Option<i64>,
    causes: &mut Causes,
) {
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
            let problems = ports::name_problems(name);
            if problems.is_empty() && !port_names.insert(name) {
                causes.push(Cause::duplicate(field, &port["name"]));
            } else {
                causes.extend(problems.iter().map(|why| Cause::invalid(field.as_str(), &port["name"], why)));
            }
        }
        if number == 0 {
            causes.push(Cause::required(format!("{field}.containerPort"), ""));
        } else {
            ports::number(&port["containerPort"], format!("{field}.containerPort"), causes);
        }
        if port["hostPort"].as_i64().is_some_and(|number| number != 0) {
            ports::number(&port["hostPort"], format!("{field}.hostPort"), causes);
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
                    causes.push(Cause::invalid(field, amount, numbers::NOT_NEGATIVE));
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
    let security = format!("{path}.securityContext");
    numbers::ids(&container["securityContext"], &security, &["runAsUser", "runAsGroup"], causes);
    for hook in ["postStart", "preStop"] {
        if let Some(given) = container["lifecycle"].get(hook).filter(|given| !given.is_null()) {
            let handlers = ["exec", "httpGet", "tcpSocket", "sleep"];
            one_handler(given, &handlers, &format!("{path}.lifecycle.{hook}"), causes);
            let sleep = &given["sleep"]["seconds"];
            if let (Some(seconds), Some(most)) = (sleep.as_i64(), grace_seconds)
                && !(0..=most).contains(&seconds)
            {
                let why =
                    format!("must be non-negative and less than terminationGracePeriodSeconds ({most})");
                causes.push(Cause::invalid(format!("{path}.lifecycle.{hook}.sleep"), sleep, &why));
            }
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
    let has = |handler: &str| given.get(handler).is_some_and(|handler| !handler.is_null());
    if has("exec") && given["exec"]["command"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(format!("{path}.exec.command"), ""));
    }
    for handler in ["httpGet", "tcpSocket"].into_iter().filter(|handler| has(handler)) {
        ports::reference(&given[handler]["port"], format!("{path}.{handler}.port"), causes);
    }
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
    one_handler(given, &["exec", "httpGet", "tcpSocket", "grpc"], path, causes);
    if has("grpc") {
        ports::number(&given["grpc"]["port"], format!("{path}.grpc.port"), causes);
    }
    let fields =
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    numbers::not_negative(given, path, &fields, causes);
    let grace = &given["terminationGracePeriodSeconds"];
    if probe == "readinessProbe" && !grace.is_null() {
        let field = format!("{path}.terminationGracePeriodSeconds");
        causes.push(Cause::invalid(field, grace, "must not be set for readinessProbes"));
    } else {
        numbers::positive(given, path, &["terminationGracePeriodSeconds"], causes);
    }
    if probe != "readinessProbe" && given["successThreshold"].as_i64().is_some_and(|count| count != 1) {
        causes.push(Cause::invalid(
            format!("{path}.successThreshold"),
            &given["successThreshold"],
            "must be 1",
        ));
    }
}
