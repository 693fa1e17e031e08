//! Pods, and the templates of pods.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{containers, numbers};
use crate::causes::{Cause, Causes};
use crate::names::{LABEL, is_label};
use crate::schema::VOLUME_SOURCES;

pub(crate) fn pod(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    pod_spec(&object["spec"], "spec", causes);
    if let Some(old) = old {
        pod_update(old, object, causes);
    }
}

pub(super) fn pod_spec(spec: &Value, path: &str, causes: &mut Causes) {
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let volumes = volumes(spec, path, causes);
    let grace_seconds = spec["terminationGracePeriodSeconds"].as_i64();
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
            containers::container(container, &path, &volumes, grace_seconds, causes);
        }
    }
    let policies = ["Always", "OnFailure", "Never"];
    if !policies.contains(&spec["restartPolicy"].as_str().unwrap_or("")) {
        causes.push(Cause::not_supported(format!("{path}.restartPolicy"), &spec["restartPolicy"], &policies));
    }
    pod_security(&spec["securityContext"], &format!("{path}.securityContext"), causes);
    preferences(&spec["affinity"], &format!("{path}.affinity"), causes);
    spread(spec, path, causes);
    let deadline = &spec["activeDeadlineSeconds"];
    numbers::within(&(1..=i64::from(i32::MAX)), deadline, format!("{path}.activeDeadlineSeconds"), causes);
    for (index, toleration) in spec["tolerations"].as_array().into_iter().flatten().enumerate() {
        if !toleration["tolerationSeconds"].is_null() && toleration["effect"] != "NoExecute" {
            let effect = json!(toleration["effect"].as_str().unwrap_or(""));
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            causes.push(Cause::invalid(format!("{path}.tolerations[{index}].effect"), &effect, why));
        }
    }
}

/// The volumes, of which it gives the names.
fn volumes<'s>(spec: &'s Value, path: &str, causes: &mut Causes) -> BTreeSet<&'s str> {
    let mut names = BTreeSet::new();
    for (index, volume) in spec["volumes"].as_array().into_iter().flatten().enumerate() {
        let field = format!("{path}.volumes[{index}].name");
        let name = volume["name"].as_str().unwrap_or("");
        if name.is_empty() {
            causes.push(Cause::required(field, ""));
        } else if !is_label(name) {
            causes.push(Cause::invalid(field, &volume["name"], LABEL));
        } else if !names.insert(name) {
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
        modes(volume, &format!("{path}.volumes[{index}]"), causes);
    }
    names
}

/// The permissions of the files in a volume.
fn modes(volume: &Value, path: &str, causes: &mut Causes) {
    let mut check = |holder: &Value, field: &str, path: String| {
        if holder[field].as_i64().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
            let why = "must be a number between 0 and 0777 (octal), both inclusive";
            causes.push(Cause::invalid(format!("{path}.{field}"), &holder[field], why));
        }
    };
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        check(&volume[source], "defaultMode", format!("{path}.{source}"));
    }
    let mut items = |holder: &Value, path: &str| {
        for source in ["configMap", "secret", "downwardAPI"] {
            for (index, item) in holder[source]["items"].as_array().into_iter().flatten().enumerate() {
                // Kubernetes does not say which file of the downward API.
                let item_path =
                    if source == "downwardAPI" { String::new() } else { format!(".items[{index}]") };
                check(item, "mode", format!("{path}.{source}{item_path}"));
            }
        }
    };
    items(volume, path);
    for (index, source) in volume["projected"]["sources"].as_array().into_iter().flatten().enumerate() {
        items(source, &format!("{path}.projected.sources[{index}]"));
    }
}

/// The users and groups that a pod's processes run as.
fn pod_security(context: &Value, path: &str, causes: &mut Causes) {
    numbers::ids(context, path, &["fsGroup", "runAsUser", "runAsGroup"], causes);
    for (index, group) in context["supplementalGroups"].as_array().into_iter().flatten().enumerate() {
        numbers::within(&numbers::IDS, group, format!("{path}.supplementalGroups[{index}]"), causes);
    }
}

/// The weights of what a pod would rather have.
fn preferences(affinity: &Value, path: &str, causes: &mut Causes) {
    for kind in ["nodeAffinity", "podAffinity", "podAntiAffinity"] {
        let list = "preferredDuringSchedulingIgnoredDuringExecution";
        for (index, term) in affinity[kind][list].as_array().into_iter().flatten().enumerate() {
            if term["weight"].as_i64().is_some_and(|weight| !(1..=100).contains(&weight)) {
                let field = format!("{path}.{kind}.{list}[{index}].weight");
                causes.push(Cause::invalid(field, &term["weight"], "must be in the range 1-100"));
            }
        }
    }
}

/// How evenly pods are spread.
fn spread(spec: &Value, path: &str, causes: &mut Causes) {
    for (index, one) in spec["topologySpreadConstraints"].as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{index}]");
        numbers::at_least(1, one, &path, &["maxSkew", "minDomains"], "must be greater than zero", causes);
    }
}

/// A pod's spec is fixed once it exists, except the images and a few more.
fn pod_update(old: &Value, new: &Value, causes: &mut Causes) {
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
