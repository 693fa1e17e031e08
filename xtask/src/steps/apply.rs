//! Server-side apply of `kubernetes/`, every object or none of them begun.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use http_body_util::BodyExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::api::{ApiResource, DynamicObject, Patch};
use kube::client::Body;
use kube::core::{Request, Status};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::Value;

use crate::clusters::Cluster;
use crate::cx::Cx;
use crate::declared::{api, body, outside, params, resolve};
use crate::image::ImageRef;
use crate::manifests::{Input, Manifests, Object, held};
use crate::owned::FIELD_MANAGER;
use crate::pipeline::{Branch, Done, Handoff, Outcome, Running, step};
use crate::plan::Planned;
use crate::temporary::App;

mod fields;
mod refusal;

#[cfg(test)]
pub(crate) mod tests;

use refusal::refusal;

/// Its name.
const NAME: &str = "apply";
/// The kind that the ingress controller's webhook is asked about.
const INGRESS: &str = "Ingress";

/// What it would do.
pub fn plan(cx: &Cx, manifests: &Manifests) -> Planned {
    let namespace = &cx.shared.namespace;
    let reads = manifests.outside().into_iter().map(|(kind, name)| {
        format!("get {}/{name} in {namespace}, which the pods read", kind.to_lowercase())
    });
    let applies = manifests.objects.iter().map(|object| {
        format!(
            "server-side apply {} in {namespace}, field manager {FIELD_MANAGER} ({})",
            object.title(),
            object.place()
        )
    });
    Planned::step(NAME, reads.chain(applies).collect())
}

/// What was applied.
pub struct Applied {
    /// Whether the pod template changed, so that a rollout is under way already.
    pub template_changed: bool,
    /// The workloads whose pods may have read something else than what is declared.
    pub stale: Vec<Stale>,
}

/// A workload with the template that it had before, while something that its pods read was put back.
#[derive(Debug, PartialEq, Eq)]
pub struct Stale {
    /// `Deployment`, `StatefulSet` or `DaemonSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What was put back.
    pub put_back: Vec<String>,
}

/// What this process has applied before: an object that is as it was then is not sent again.
#[derive(Default)]
pub struct Known(Mutex<BTreeMap<String, Value>>);

impl Known {
    fn has(&self, object: &Object) -> bool {
        self.0.lock().get(&key(object)) == Some(&object.value)
    }

    fn keep(&self, object: &Object) {
        self.0.lock().insert(key(object), object.value.clone());
    }
}

fn key(object: &Object) -> String {
    format!("{} {}", object.api_version, object.title())
}

/// Applies all objects but those that are `known`; the image is set to the one that was built. Ingresses are the last,
/// and wait for `ingress`, where it is not open yet: its webhook refuses them until then, while the pods can start.
///
/// # Errors
/// An unknown kind, before anything is applied; the API server's refusal, naming file and line.
pub async fn run(
    branch: &mut Branch<'_>,
    cluster: &Done<Cluster>,
    manifests: &Manifests,
    image: &Done<ImageRef>,
    known: &Known,
    ingress: Option<&Handoff<()>>,
) -> Result<Done<Applied>> {
    let cx = branch.cx;
    step(branch, NAME, async |step| {
        let (client, namespace) = (&cluster.client, &cx.shared.namespace);
        let app = App::of(cx, cluster, manifests);
        let before = cx.unless_stopped(app_template(&app)).await?;
        if let Some(mark) = cx.unless_stopped(app.put_back_leftovers()).await? {
            step.warn(format!("deployment/{} was left changed, and is put back: {mark}", app.deployment));
        }
        let outside = outside(client, namespace, manifests, |warning| step.warn(warning));
        let outside = cx.unless_stopped(outside).await?;
        let mut targets = Vec::new();
        let rendered = manifests.rendered(namespace, &image.reference, &outside);
        let all = rendered.len();
        for object in rendered.into_iter().filter(|object| !known.has(object)) {
            let resource = cx.unless_stopped(resolve(client, &object)).await?;
            targets.push((object, resource));
        }
        // The sort keeps the order of the files otherwise.
        targets.sort_by_key(|(object, _)| object.kind == INGRESS);
        let mut sent = Vec::new();
        let mut changes = Vec::new();
        for (object, resource) in targets {
            if let Some(ingress) = ingress.filter(|_| object.kind == INGRESS) {
                step.at("waiting for the ingress controller, whose webhook takes the Ingress");
                ingress.take_within(step).await?;
            }
            let one = cx.unless_stopped(apply(cx, step, client, object, &resource)).await?;
            known.keep(&one.object);
            if let Some(change) = one.change() {
                let change = format!("{} {change}", one.object.title());
                cx.output.trace(&format!("  {change}"));
                step.at(change.as_str());
                changes.push(change);
            }
            sent.push(one);
        }
        let after = cx.unless_stopped(app_template(&app)).await?;
        let applied = Applied { template_changed: before != after, stale: stale(&sent) };
        Ok(if changes.is_empty() {
            Outcome::Already(applied, format!("all {all} objects are as in kubernetes/"))
        } else if changes.len() == all {
            let how = changes[0].rsplit(' ').next().unwrap_or("applied");
            Outcome::Did(applied, format!("{all} objects {how}"))
        } else {
            Outcome::Did(applied, changes.join(", "))
        })
    })
    .await
}

/// What a workload's pods are made from; a change of it is what starts a rollout.
fn template(object: &DynamicObject) -> Value {
    object.data.pointer("/spec/template").cloned().unwrap_or_default()
}

async fn app_template(app: &App<'_>) -> Result<Option<Value>> {
    let resource = ApiResource::erase::<Deployment>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(app.client.clone(), app.namespace, &resource);
    let found = api.get_opt(app.deployment).await;
    let found = found.with_context(|| format!("looking for deployment/{}", app.deployment))?;
    Ok(found.as_ref().map(template))
}

/// The workloads that are as they were, while what their pods read is not: a pod that was started in between has read
/// what nobody declared, and the template's hash can't tell.
fn stale(sent: &[Sent]) -> Vec<Stale> {
    let put_back: BTreeSet<Input> = sent
        .iter()
        .filter(|one| !one.is_same(|object| held(&object.data)))
        .filter_map(|one| Some(one.object.content()?.0))
        .collect();
    let mut stale = Vec::new();
    for one in sent.iter().filter(|one| one.is_same(template)) {
        let reads = one.object.reads();
        let put_back: Vec<String> = reads
            .intersection(&put_back)
            .map(|(kind, name)| format!("{}/{name}", kind.to_lowercase()))
            .collect();
        if !put_back.is_empty() {
            stale.push(Stale { kind: one.object.kind.clone(), name: one.object.name.clone(), put_back });
        }
    }
    stale
}

/// An object as it was sent, and as it was in the cluster before and after.
struct Sent {
    object: Object,
    before: Option<DynamicObject>,
    after: DynamicObject,
}

impl Sent {
    /// What became of it, where anything did.
    fn change(&self) -> Option<&'static str> {
        let wanted = |object| wanted(&self.object.value, object);
        match &self.before {
            None => Some("created"),
            Some(before) => (wanted(before) != wanted(&self.after)).then_some("configured"),
        }
    }

    /// Whether a part of it was there before, and the same.
    fn is_same(&self, part: impl Fn(&DynamicObject) -> Value) -> bool {
        self.before.as_ref().is_some_and(|before| part(before) == part(&self.after))
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
    object: Object,
    resource: &(ApiResource, bool),
) -> Result<Sent> {
    let api = api(client, &cx.shared.namespace, resource);
    let before =
        api.get_opt(&object.name).await.with_context(|| format!("looking for {}", object.title()))?;
    let request = Request::new(api.resource_url())
        .patch(&object.name, &params(), &Patch::Apply(body(&object, resource)))
        .with_context(|| format!("asking for {}", object.title()))?;
    let (after, warnings) = match send(client, request).await? {
        Ok(answer) => answer,
        Err(status) => {
            return Err(refusal(client, &object, &status, &cx.shared.namespace, &cx.commands).await);
        }
    };
    for warning in warnings {
        step.warn(format!("{}: {}: {warning}", object.place(), object.title()));
    }
    Ok(Sent { object, before, after })
}

/// What a manifest wants of an object: the values at its own fields, and which fields were ever its own. What
/// controllers and autoscalers write beside them is not our change.
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
