//! Server-side apply of `kubernetes/`, every object or none of them begun.

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, ValidationDirective};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

use crate::clusters::Cluster;
use crate::cx::Cx;
use crate::failure::Attach as _;
use crate::manifests::{Manifests, Object};
use crate::pipeline::{Branch, Done, Outcome, step};
use crate::steps::image::ImageRef;

/// The field manager of everything that this tool applies.
pub const FIELD_MANAGER: &str = "xtask";

/// What was applied.
pub struct Applied {
    /// Whether the pod template changed, so that a rollout is under way already.
    pub template_changed: bool,
}

/// Applies all objects; the image is set to the one that was built.
///
/// # Errors
/// An unknown kind, before anything is applied; the API server's refusal, naming file and line.
pub async fn run(
    branch: &mut Branch<'_>,
    cluster: &Done<Cluster>,
    manifests: &Manifests,
    image: &Done<ImageRef>,
) -> Result<Done<Applied>> {
    let cx = branch.cx;
    step(branch, "apply", async |step| {
        let objects = manifests.rendered(&cx.shared.namespace, &image.reference);
        let template = || pod_template(cx, &cluster.client, manifests.deployment_name());
        let before = cx.unless_stopped(template()).await?;
        let mut targets = Vec::new();
        for object in objects {
            let resource = cx.unless_stopped(resolve(&cluster.client, &object)).await?;
            targets.push((object, resource));
        }
        let mut said = Vec::new();
        for (object, resource) in &targets {
            let change = cx.unless_stopped(apply(cx, &cluster.client, object, resource)).await?;
            if change != Change::Unchanged {
                cx.output.trace(&format!("  {} {}", object.title(), change.word()));
                step.at(format!("{} {}", object.title(), change.word()));
                said.push(format!("{} {}", object.title(), change.word()));
            }
        }
        let template_changed = before != cx.unless_stopped(template()).await?;
        let applied = Applied { template_changed };
        Ok(if said.is_empty() {
            Outcome::Already(applied, format!("all {} objects are as in kubernetes/", targets.len()))
        } else if said.len() == targets.len() {
            Outcome::Did(
                applied,
                format!("{} objects {}", targets.len(), said[0].rsplit(' ').next().unwrap_or("applied")),
            )
        } else {
            Outcome::Did(applied, said.join(", "))
        })
    })
    .await
}

/// What the Deployment's pods are made from; a change of it is what starts a rollout.
async fn pod_template(cx: &Cx, client: &Client, name: &str) -> Result<Option<PodTemplateSpec>> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), &cx.shared.namespace);
    let found = api.get_opt(name).await.with_context(|| format!("looking for Deployment {name}"))?;
    Ok(found.and_then(|deployment| deployment.spec).map(|spec| spec.template))
}

/// How the API serves an object's kind.
pub async fn resolve(client: &Client, object: &Object) -> Result<(ApiResource, bool)> {
    let gvk = match object.api_version.split_once('/') {
        Some((group, version)) => GroupVersionKind::gvk(group, version, &object.kind),
        None => GroupVersionKind::gvk("", &object.api_version, &object.kind),
    };
    match kube::discovery::pinned_kind(client, &gvk).await {
        Ok((resource, capabilities)) => {
            Ok((resource, capabilities.scope == kube::discovery::Scope::Namespaced))
        }
        Err(kube::Error::Api(status)) if status.code != 404 => {
            Err(kube::Error::Api(status)).with_context(|| format!("asking the API for {}", object.kind))
        }
        Err(kube::Error::Api(_) | kube::Error::Discovery(_)) => Err(unknown(object)),
        Err(error) => Err(error).with_context(|| format!("asking the API for {}", object.kind)),
    }
}

fn unknown(object: &Object) -> anyhow::Error {
    anyhow!(
        "{}: the cluster knows no kind `{}` in apiVersion `{}`; nothing was applied",
        object.place(),
        object.kind,
        object.api_version
    )
    .hint("check the spelling of both, or install what defines the kind; `kubectl api-resources` lists the known ones")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Created,
    Configured,
    Unchanged,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Change::Created => "created",
            Change::Configured => "configured",
            Change::Unchanged => "unchanged",
        }
    }
}

/// An API for the object's kind, in the run's namespace where the kind has one.
pub fn api(cx: &Cx, client: &Client, (resource, namespaced): &(ApiResource, bool)) -> Api<DynamicObject> {
    if *namespaced {
        Api::namespaced_with(client.clone(), &cx.shared.namespace, resource)
    } else {
        Api::all_with(client.clone(), resource)
    }
}

async fn apply(cx: &Cx, client: &Client, object: &Object, resource: &(ApiResource, bool)) -> Result<Change> {
    let api = api(cx, client, resource);
    let before =
        api.get_opt(&object.name).await.with_context(|| format!("looking for {}", object.title()))?;
    let params = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply(FIELD_MANAGER).force()
    };
    let mut value = object.value.clone();
    if !resource.1
        && let Some(metadata) = value["metadata"].as_object_mut()
    {
        metadata.remove("namespace");
    }
    let after = api
        .patch(&object.name, &params, &Patch::Apply(&value))
        .await
        .with_context(|| format!("{}: applying {}", object.place(), object.title()))
        .hint("the API server's message is above; fix the manifest and run again")?;
    Ok(match before {
        None => Change::Created,
        Some(before) if wanted(&value, &before) == wanted(&value, &after) => Change::Unchanged,
        Some(_) => Change::Configured,
    })
}

/// What a manifest wants of an object: the values at its own fields, and which fields were ever its own. What controllers
/// and autoscalers write beside them is not our change.
fn wanted(manifest: &Value, object: &DynamicObject) -> (Option<Value>, Vec<FieldsV1>) {
    let is_own = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
    };
    let owned = object.managed_fields().iter().filter(is_own).filter_map(|entry| entry.fields_v1.clone());
    let whole = serde_json::to_value(object).ok();
    (whole.map(|whole| at_fields_of(manifest, &whole)), owned.collect())
}

fn at_fields_of(manifest: &Value, object: &Value) -> Value {
    match (manifest, object) {
        (Value::Object(fields), Value::Object(object)) => fields
            .iter()
            .filter_map(|(name, field)| Some((name.clone(), at_fields_of(field, object.get(name)?))))
            .collect(),
        (Value::Array(items), Value::Array(objects)) if items.len() == objects.len() => {
            items.iter().zip(objects).map(|(item, object)| at_fields_of(item, object)).collect()
        }
        _ => object.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_manifest_speaks_of_is_our_change() {
        let manifest = json!({"spec": {"template": {"containers": [{"name": "app", "image": "new"}]}}});
        let object = |image: &str, replicas: u32, owned: &str| -> DynamicObject {
            let container = json!({"name": "app", "image": image, "imagePullPolicy": "Never"});
            let mut entry = json!({"manager": FIELD_MANAGER, "operation": "Apply", "fieldsType": "FieldsV1"});
            entry["fieldsV1"] = json!({owned: {}});
            let other =
                json!({"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:replicas": replicas}});
            serde_json::from_value(json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "managedFields": [entry, other]},
                "spec": {"replicas": replicas, "template": {"containers": [container]}},
                "status": {"replicas": replicas},
            }))
            .expect("an object")
        };
        let before = wanted(&manifest, &object("new", 3, "f:spec"));
        assert_eq!(before, wanted(&manifest, &object("new", 7, "f:spec")), "an autoscaler's write");
        assert_ne!(before, wanted(&manifest, &object("old", 3, "f:spec")), "another value");
        assert_ne!(
            before,
            wanted(&manifest, &object("new", 3, "f:data")),
            "a field that the manifest gave up"
        );
    }
}
