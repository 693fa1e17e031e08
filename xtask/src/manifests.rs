//! The plain YAML in `kubernetes/`, read once: as generic objects to apply, and typed where a step needs to know.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::networking::v1::Ingress;
use serde::de::{Deserialize as _, DeserializeOwned};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::failure::Attach as _;
use crate::steps::image::REPOSITORY;

/// The annotation of the pod template by which a changed ConfigMap becomes a rollout.
const CONFIG_HASH: &str = "xtask/config-hash";

/// All objects of the folder, in the order of file names.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// What is applied.
    pub objects: Vec<Object>,
    /// The app's Deployment.
    pub deployment: Deployment,
    /// The app's Ingress.
    pub ingress: Ingress,
    /// The autoscaler, where there is one.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
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

    fn typed<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.value.clone())
            .with_context(|| format!("{}: this is no valid {}", self.place(), self.kind))
            .hint(format!("`kubectl explain {}` lists the fields and their types", self.kind.to_lowercase()))
    }
}

impl Manifests {
    /// The Host header that the Ingress routes by.
    pub fn host(&self) -> &str {
        let rules = self.ingress.spec.as_ref().and_then(|spec| spec.rules.as_ref());
        rules.and_then(|rules| rules.first()).and_then(|rule| rule.host.as_deref()).unwrap_or("localhost")
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

    /// Label selector of the app's pods, as the API takes it.
    pub fn pod_selector(&self) -> String {
        let selector = self.deployment.spec.as_ref().map(|spec| &spec.selector);
        let labels = selector.and_then(|selector| selector.match_labels.as_ref());
        let pairs = labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}"));
        pairs.collect::<Vec<_>>().join(",")
    }

    /// The objects as they go to the cluster: in `namespace`, running `reference`, the pod template marked with
    /// a hash of the ConfigMaps.
    pub fn rendered(&self, namespace: &str, reference: &str) -> Vec<Object> {
        let mut hash = Sha256::new();
        for config in self.objects.iter().filter(|object| object.kind == "ConfigMap") {
            hash.update(config.value.get("data").unwrap_or(&Value::Null).to_string());
        }
        let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let mut objects = self.objects.clone();
        for object in &mut objects {
            let value = &mut object.value;
            value["metadata"]["namespace"] = namespace.into();
            if object.kind == "Deployment" {
                let template = &mut value["spec"]["template"];
                template["metadata"]["annotations"][CONFIG_HASH] = hash.as_str().into();
                let containers = template["spec"]["containers"].as_array_mut();
                for container in containers.into_iter().flatten().filter(|c| c["image"] == REPOSITORY) {
                    container["image"] = reference.into();
                }
            }
        }
        objects
    }
}

/// Reads every `*.yaml` and `*.yml` of a folder.
///
/// # Errors
/// Naming file and line: YAML that does not parse, an object without kind or name, a missing Deployment or Ingress.
pub fn read(folder: &Path) -> Result<Manifests> {
    let listing = std::fs::read_dir(folder)
        .with_context(|| format!("reading the manifests in {}", folder.display()))
        .hint("the manifests live in `kubernetes/` at the top of the repository")?;
    let mut files = Vec::new();
    for entry in listing {
        let path = entry.with_context(|| format!("listing {}", folder.display()))?.path();
        if path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml") {
            files.push(path);
        }
    }
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let shown = folder
            .file_name()
            .map_or_else(|| file.clone(), |name| Path::new(name).join(file.file_name().unwrap_or_default()));
        objects.extend(parse(&shown, &text)?);
    }
    let mut seen = BTreeMap::new();
    for object in &objects {
        if let Some(first) = seen.insert(object.title(), object.place()) {
            bail!("{}: {} is also at {first}", object.place(), object.title());
        }
    }
    let of_kind = |kind: &str| objects.iter().find(|object| object.kind == kind);
    let need = |kind: &str| {
        of_kind(kind)
            .ok_or_else(|| anyhow!("there is no {kind} in {}", folder.display()))
            .hint("`git status kubernetes/` shows what was changed or removed")
    };
    let deployment: Deployment = need("Deployment")?.typed()?;
    let ingress = need("Ingress")?.typed()?;
    let autoscaler = of_kind("HorizontalPodAutoscaler").map(Object::typed).transpose()?;
    let names_image =
        deployment.spec.iter().flat_map(|spec| spec.template.spec.iter()).flat_map(|pod| &pod.containers);
    if !names_image.clone().any(|container| container.image.as_deref() == Some(REPOSITORY)) {
        let place = need("Deployment")?.place();
        let lost = || -> Result<()> {
            bail!("{place}: no container of the Deployment has the image `{REPOSITORY}`")
        };
        lost()
            .hint(format!("write `image: {REPOSITORY}` without a tag; the tag is set when it is applied"))?;
    }
    Ok(Manifests { objects, deployment, ingress, autoscaler })
}

fn parse(file: &Path, text: &str) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    let mut starts = document_starts(text).into_iter();
    for document in serde_yaml::Deserializer::from_str(text) {
        let line = starts.next().unwrap_or(1);
        let value = Value::deserialize(document).map_err(|error| {
            let place = match error.location() {
                Some(at) => format!("{}:{}:{}", file.display(), at.line(), at.column()),
                None => file.display().to_string(),
            };
            anyhow!("{place}: this YAML does not parse: {error}")
                .hint("mend the line, or its indentation, and run again")
        })?;
        if value.is_null() {
            continue;
        }
        let field = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let need = |path: &str, what: &str| {
            field(path)
                .ok_or_else(|| anyhow!("{}:{line}: this object has no `{what}`", file.display()))
                .hint("every Kubernetes object needs apiVersion, kind and metadata.name")
        };
        objects.push(Object {
            file: file.to_owned(),
            line,
            api_version: need("/apiVersion", "apiVersion")?,
            kind: need("/kind", "kind")?,
            name: need("/metadata/name", "metadata.name")?,
            value,
        });
    }
    Ok(objects)
}

/// The lines, from 1, on which the documents of a stream have their first content.
fn document_starts(text: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut in_document = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("---") {
            in_document = false;
        } else if !in_document && !line.trim_start().starts_with('#') && !line.trim().is_empty() {
            starts.push(index + 1);
            in_document = true;
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::paragraph;

    fn shipped() -> Manifests {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../kubernetes")).expect("the shipped manifests")
    }

    #[test]
    fn the_shipped_manifests_say_what_the_steps_need() {
        let manifests = shipped();
        assert_eq!(manifests.host(), "simple-model-api.local");
        assert_eq!(manifests.deployment_name(), "simple-model-api-deployment");
        assert_eq!(manifests.autoscaler_name(), Some("simple-model-api-hpa"));
        assert_eq!(manifests.min_replicas(), Some(3));
        assert!(!manifests.pod_selector().is_empty());
    }

    #[test]
    fn rendering_sets_the_tag_and_the_config_hash() {
        let manifests = shipped();
        let hash_of = |objects: &[Object]| {
            let deployment = objects.iter().find(|object| object.kind == "Deployment").expect("a deployment");
            assert_eq!(
                deployment.value["spec"]["template"]["spec"]["containers"][0]["image"],
                "simple-model-api:abc"
            );
            assert_eq!(deployment.value["metadata"]["namespace"], "here");
            deployment.value["spec"]["template"]["metadata"]["annotations"][CONFIG_HASH].clone()
        };
        let before = hash_of(&manifests.rendered("here", "simple-model-api:abc"));
        let mut changed = manifests.clone();
        let config =
            changed.objects.iter_mut().find(|object| object.kind == "ConfigMap").expect("a config map");
        config.value["data"]["PORT"] = "9000".into();
        assert_ne!(before, hash_of(&changed.rendered("here", "simple-model-api:abc")));
    }

    #[test]
    fn bad_yaml_is_named_with_file_and_line() {
        let error =
            parse(Path::new("kubernetes/bad.yaml"), "apiVersion: v1\nkind: ConfigMap\n  metadata: x\n")
                .unwrap_err();
        assert!(paragraph(&error).starts_with("kubernetes/bad.yaml:3:"), "{}", paragraph(&error));
    }

    #[test]
    fn an_object_without_a_name_is_refused_at_its_line() {
        let text =
            "# about\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n\nkind: Service\n";
        let error = parse(Path::new("k/x.yaml"), text).unwrap_err();
        assert_eq!(paragraph(&error), "k/x.yaml:8: this object has no `apiVersion`");
    }
}
