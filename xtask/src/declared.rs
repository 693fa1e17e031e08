//! The objects of `kubernetes/` towards the cluster: how the API serves their kinds, what is sent of them and how, and
//! what the cluster has that they read.

use anyhow::{Context as _, Result, anyhow};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PatchParams, ValidationDirective};
use kube::{Api, Client};
use serde_json::Value;

use crate::commands::Advice;
use crate::failure::Attach as _;
use crate::manifests::{Contents, Manifests, Object, held};
use crate::owned::FIELD_MANAGER;

/// What the cluster holds of the ConfigMaps and Secrets that the pods read and `kubernetes/` has not. What may not be
/// read is warned about.
///
/// # Errors
/// When the API does not answer.
pub async fn outside(
    client: &Client,
    namespace: &str,
    manifests: &Manifests,
    warn: impl Fn(String),
) -> Result<Contents> {
    let mut contents = Contents::new();
    for (kind, name) in manifests.outside() {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let title = format!("{}/{name}", kind.to_lowercase());
        match api.get_opt(&name).await {
            Ok(found) => contents.extend(found.map(|found| ((kind, name), held(&found.data)))),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                warn(format!("{title} may not be read, so that a change of it reaches no running pod"));
            }
            Err(error) => return Err(error).with_context(|| format!("reading {title}, which the pods read")),
        }
    }
    Ok(contents)
}

/// How the API serves an object's kind.
///
/// # Errors
/// When the API server does not serve that kind, with what to try.
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
    .hint(Advice::Kubectl(
        "api-resources".to_owned(),
        "lists the known kinds; check the spelling of both, or install what defines this one",
    ))
}

/// An API for the object's kind, in the namespace where the kind has one.
pub fn api(
    client: &Client,
    namespace: &str,
    (resource, namespaced): &(ApiResource, bool),
) -> Api<DynamicObject> {
    if *namespaced {
        Api::namespaced_with(client.clone(), namespace, resource)
    } else {
        Api::all_with(client.clone(), resource)
    }
}

/// How everything is applied.
pub fn params() -> PatchParams {
    PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply(FIELD_MANAGER).force()
    }
}

/// What is sent of an object: what no namespace holds names none.
pub fn body(object: &Object, (_, namespaced): &(ApiResource, bool)) -> Value {
    let mut value = object.value.clone();
    if !namespaced && let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove("namespace");
    }
    value
}
