//! The plain manifests in `kubernetes/`, read once: as generic objects to apply, and typed where a step needs to know.
//! They mean here what `kubectl apply -f kubernetes/` takes them to mean.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::commands::Advice;
use crate::failure::{Attach as _, Exit};
use crate::repository::REPOSITORY;

mod app;
mod files;
mod misfit;
mod render;
mod yaml;

#[cfg(test)]
pub(crate) mod tests;

pub use render::{Contents, Input, held};

/// What the readiness gates ask the app for by its entry.
pub const HEALTH: &str = "/health";

/// What in the Ingress keeps [`HEALTH`] from the app.
#[derive(Clone, Debug, PartialEq)]
pub struct Hidden {
    /// The path or annotation, with its place.
    pub why: String,
    /// What to write instead.
    pub cure: String,
    /// Whether it surely does; a rewrite by a pattern only may.
    pub is_certain: bool,
}

/// The port of the app's Service that the Ingress leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetPort {
    /// Number or name of the pods' port.
    pub port: IntOrString,
    /// Where it is written.
    pub place: String,
}

/// All objects of the folder, in the order of file names, and which of them are the app.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// What is applied.
    pub objects: Vec<Object>,
    /// The app's Deployment: the one with the app's image.
    pub deployment: Deployment,
    /// The app's Ingress: the one that leads to the Service that selects the Deployment's pods.
    pub ingress: Ingress,
    /// The autoscaler that targets the Deployment, where there is one.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// What is odd in the files but not wrong, each with its place.
    pub warnings: Vec<String>,
    /// The Deployment's label selector.
    selector: String,
    /// The host of the Ingress's rule for the app.
    host: String,
    hidden: Option<Hidden>,
    target_port: TargetPort,
}

/// One object, and where it is written.
#[derive(Clone, Debug)]
pub struct Object {
    /// The file.
    pub file: PathBuf,
    /// Line on which it begins, from 1.
    pub line: usize,
    /// `group/version`, or `version` alone.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// The whole object.
    pub value: Value,
    lines: Arc<yaml::Lines>,
}

impl Object {
    /// `kind/name`, as kubectl prints it.
    pub fn title(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }

    /// `file:line`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    /// `file:line` of a field, given as a JSON pointer; of the nearest one around it that is written there.
    pub fn place_of(&self, pointer: &str) -> String {
        format!("{}:{}", self.file.display(), self.lines.of(pointer))
    }

    /// The API group; empty for the core one.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The ConfigMaps and Secrets that a workload's pods read, where its controller replaces them by a new template.
    pub fn reads(&self) -> BTreeSet<Input> {
        render::read_by(self)
    }

    /// The ConfigMap or Secret that it is, and what it holds.
    pub fn content(&self) -> Option<(Input, Value)> {
        render::content(self)
    }

    fn is(&self, group: &str, kind: &str) -> bool {
        self.kind == kind && self.group() == group
    }

    fn typed<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.value.clone()).map_err(|error| {
            let way = misfit::misfit(&self.value, &|part| serde_json::from_value::<T>(part).is_ok());
            let pointer = way.pointer();
            let explain = Advice::Kubectl(
                format!("explain {}", self.kind.to_lowercase()),
                "lists the fields and their types",
            );
            let reason = error.to_string().replace("expected i32", "expected a whole number");
            let cure = self.value.pointer(&pointer).and_then(|value| requoted(value, &reason));
            anyhow!("{}: {}: {way}: {reason}", self.place_of(&pointer), self.title())
                .hint(cure.map_or(explain, Advice::from))
        })
    }
}

impl Manifests {
    /// The Host header that the Ingress routes by.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What keeps the app's health from being asked by the entry, where something does.
    pub fn hidden(&self) -> Option<&Hidden> {
        self.hidden.as_ref()
    }

    /// The port of the pods that the Service's port for the Ingress leads to.
    pub fn target_port(&self) -> &TargetPort {
        &self.target_port
    }

    /// Name of the Deployment.
    pub fn deployment_name(&self) -> &str {
        self.deployment.metadata.name.as_deref().unwrap_or_default()
    }

    /// The autoscaler's lower bound: the number of replicas that a finished rollout has at least.
    pub fn min_replicas(&self) -> Option<i32> {
        self.autoscaler.as_ref().and_then(|hpa| hpa.spec.as_ref()).map(|spec| spec.min_replicas.unwrap_or(1))
    }

    /// Name of the autoscaler.
    pub fn autoscaler_name(&self) -> Option<&str> {
        self.autoscaler.as_ref().and_then(|hpa| hpa.metadata.name.as_deref())
    }

    /// The Deployment's label selector, as the API takes it. Other pods may have the labels too: those of the app are
    /// the ones that it selects *and* owns.
    pub fn pod_selector(&self) -> &str {
        &self.selector
    }

    /// The objects as they go to the cluster: in `namespace`, running `reference`. `outside` is what the cluster holds
    /// of [`Manifests::outside`].
    pub fn rendered(&self, namespace: &str, reference: &str, outside: &Contents) -> Vec<Object> {
        render::render(&self.objects, namespace, reference, outside)
    }

    /// The ConfigMaps and Secrets that the pods read and that the folder does not hold.
    pub fn outside(&self) -> BTreeSet<Input> {
        render::outside(&self.objects)
    }

    /// Whether the folder holds an object.
    pub fn hold(&self, group: &str, kind: &str, name: &str) -> bool {
        self.objects.iter().any(|object| object.is(group, kind) && object.name == name)
    }

    /// Where the probes of the Deployment's containers are written: by container and `startup`, `readiness` or
    /// `liveness`.
    pub fn probes(&self) -> BTreeMap<(String, &'static str), String> {
        let is_app =
            |object: &&Object| object.is("apps", "Deployment") && object.name == self.deployment_name();
        let Some(object) = self.objects.iter().find(is_app) else { return BTreeMap::new() };
        let pod = self.deployment.spec.iter().filter_map(|spec| spec.template.spec.as_ref());
        let containers = pod.flat_map(|pod| pod.containers.iter().enumerate());
        let places = containers.flat_map(|(index, container)| {
            ["startup", "readiness", "liveness"].map(|word| {
                let pointer = format!("/spec/template/spec/containers/{index}/{word}Probe/httpGet/path");
                ((container.name.clone(), word), object.place_of(&pointer))
            })
        });
        places.collect()
    }

    /// The container of the Deployment that runs the app's image.
    pub fn container_name(&self) -> &str {
        let pod = self.deployment.spec.iter().filter_map(|spec| spec.template.spec.as_ref());
        let mut containers = pod.flat_map(|pod| &pod.containers);
        let is_app = |container: &&Container| container.image.as_deref() == Some(REPOSITORY);
        containers.find(is_app).map_or("", |container| container.name.as_str())
    }
}

/// Reads a folder as `kubectl apply -f FOLDER --namespace NAMESPACE` does, and finds the app in it.
///
/// # Errors
/// Naming file and line: what does not parse, an object without kind or name, one that is there twice or belongs to
/// another namespace; a Deployment, Service or Ingress of the app that is missing, or of which there are two. Exit code
/// 10.
pub fn read(folder: &Path, namespace: &str) -> Result<Manifests> {
    read_all(folder, namespace).exit(Exit::Preflight)
}

/// The objects of a folder alone, and what is odd about them.
///
/// # Errors
/// Naming file and line: what does not parse, an object without kind or name.
pub fn objects(folder: &Path) -> Result<(Vec<Object>, Vec<String>)> {
    files::read(folder).map(|read| (read.objects, read.warnings))
}

/// The files of a folder that are read.
///
/// # Errors
/// When it can't be listed.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    files::files(folder)
}

fn read_all(folder: &Path, namespace: &str) -> Result<Manifests> {
    let (objects, mut warnings) = objects(folder)?;
    let mut seen = BTreeMap::new();
    for object in &objects {
        let key = (object.group(), object.kind.as_str(), object.name.as_str());
        if let Some(first) = seen.insert(key, object.place()) {
            return Err(anyhow!("{}: {} is also at {first}", object.place(), object.title()))
                .hint("keep one of the two, or give them different names");
        }
        check_namespace(object, namespace)?;
    }
    let app = app::find(folder, &objects)?;
    warnings.extend(render::warnings(&objects));
    let app::App { deployment, ingress, autoscaler, selector, host, hidden, target_port } = app;
    Ok(Manifests { deployment, ingress, autoscaler, selector, host, hidden, target_port, objects, warnings })
}

/// Kinds that no namespace holds; kubectl passes over a namespace that their manifests name.
const CLUSTER_WIDE: [&str; 18] = [
    "APIService",
    "CSIDriver",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "FlowSchema",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "RuntimeClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingWebhookConfiguration",
];

/// As kubectl: an object that names another namespace than the chosen one is no object to put into the chosen one.
fn check_namespace(object: &Object, chosen: &str) -> Result<()> {
    let own = object.value.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    if own.is_empty() || own == chosen || CLUSTER_WIDE.contains(&object.kind.as_str()) {
        return Ok(());
    }
    let place = object.place_of("/metadata/namespace");
    Err(anyhow!("{place}: {} belongs to namespace {own}, but the chosen one is {chosen}", object.title()))
        .hint(format!("take `namespace: {own}` out of the manifest, or choose it with --namespace {own}"))
}

/// How a value of the wrong type would be of the right one, where the quotes are what is wrong with it.
pub fn requoted(value: &Value, reason: &str) -> Option<String> {
    let wants = |words: [&str; 2]| words.iter().any(|word| reason.contains(word));
    match value {
        Value::String(text) if wants(["a whole number", "numeric"]) => {
            text.parse::<i64>().is_ok().then(|| format!("write it without quotes: {text}"))
        }
        Value::Number(_) | Value::Bool(_) if wants(["a string", "expected string"]) => {
            Some(format!("quote it: \"{value}\""))
        }
        _ => None,
    }
}

/// Whether the labels say that an object is one of the app's, of this namespace or of the one that holds it; nothing
/// where they do not say.
pub fn is_part_of_app(labels: &BTreeMap<String, String>) -> Option<bool> {
    labels.get(render::PART_OF).map(|app| app == REPOSITORY)
}

/// Selects the objects of the app.
pub fn selector() -> String {
    format!("{}={REPOSITORY}", render::PART_OF)
}

/// Selects the objects of the app that no namespace holds and that came with `namespace`.
pub fn cluster_wide_selector(namespace: &str) -> String {
    format!("{},{}={namespace}", selector(), render::NAMESPACE)
}

/// Objects as a sentence names them.
fn listed(objects: &[&Object]) -> String {
    let each = objects.iter().map(|object| format!("{} ({})", object.title(), object.place()));
    each.collect::<Vec<_>>().join(", ")
}
