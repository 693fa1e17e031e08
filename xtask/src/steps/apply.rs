//! Server-side apply of `kubernetes/`, every object or none of them begun.

use anyhow::{Context as _, Result, anyhow};
use http_body_util::BodyExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, ValidationDirective};
use kube::client::Body;
use kube::core::{Request, Status};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

use crate::clusters::Cluster;
use crate::commands::Advice;
use crate::cx::Cx;
use crate::failure::Attach as _;
use crate::manifests::{Manifests, Object};
use crate::owned::FIELD_MANAGER;
use crate::pipeline::{Branch, Done, Outcome, Running, step};
use crate::steps::image::ImageRef;
use crate::temporary::App;

mod fields;
mod refusal;

#[cfg(test)]
mod tests;

use refusal::refusal;

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
        let app = App::of(cx, cluster, manifests);
        if let Some(mark) = cx.unless_stopped(app.mend()).await? {
            step.warn(format!("deployment/{} was left changed, and is put back: {mark}", app.deployment));
        }
        let mut targets = Vec::new();
        for object in objects {
            let resource = cx.unless_stopped(resolve(&cluster.client, &object)).await?;
            targets.push((object, resource));
        }
        let mut said = Vec::new();
        for (object, resource) in &targets {
            let change = cx.unless_stopped(apply(cx, step, &cluster.client, object, resource)).await?;
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
    .hint(Advice::Kubectl(
        "api-resources".to_owned(),
        "lists the known kinds; check the spelling of both, or install what defines this one",
    ))
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

/// Sends a request, and hears what the API server or a webhook warns about: that is in the answer's headers alone. The
/// inner error is its refusal.
async fn send(
    client: &Client,
    request: http::Request<Vec<u8>>,
) -> Result<std::result::Result<(DynamicObject, Vec<String>), Status>> {
    let answer = client.send(request.map(Body::from)).await.context("asking the API server")?;
    let headers = answer.headers().get_all(http::header::WARNING);
    let warnings = headers.iter().filter_map(|header| header.to_str().ok()).flat_map(warnings).collect();
    let code = answer.status();
    let body = answer.into_body().collect().await.context("reading the API server's answer")?.to_bytes();
    if code.is_success() {
        let object = serde_json::from_slice(&body).context("reading the API server's answer")?;
        return Ok(Ok((object, warnings)));
    }
    Ok(Err(serde_json::from_slice(&body).unwrap_or_else(|_| Status {
        message: format!("{code}: {}", String::from_utf8_lossy(&body)),
        code: code.as_u16(),
        ..Status::default()
    })))
}

/// The texts of a `Warning` header: `299 - "text"`, one or more.
fn warnings(header: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut text = None::<String>;
    let mut chars = header.chars();
    while let Some(c) = chars.next() {
        match (&mut text, c) {
            (None, '"') => text = Some(String::new()),
            (None, _) => {}
            (Some(_), '"') => texts.extend(text.take()),
            (Some(text), '\\') => text.extend(chars.next()),
            (Some(text), c) => text.push(c),
        }
    }
    // Behind the text stands its date, in quotes too.
    texts.retain(|text| !text.ends_with(" GMT"));
    texts
}

async fn apply(
    cx: &Cx,
    step: &Running<'_>,
    client: &Client,
    object: &Object,
    resource: &(ApiResource, bool),
) -> Result<Change> {
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
    let request = Request::new(api.resource_url())
        .patch(&object.name, &params, &Patch::Apply(&value))
        .with_context(|| format!("asking for {}", object.title()))?;
    let (after, warnings) = match send(client, request).await? {
        Ok(answer) => answer,
        Err(status) => return Err(refusal(object, &status, &cx.shared.namespace, &cx.commands)),
    };
    for warning in warnings {
        step.warn(format!("{}: {}: {warning}", object.place(), object.title()));
    }
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
