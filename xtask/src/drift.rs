//! Where the cluster and `kubernetes/` have come apart: objects that have left the folder, that are missing from the
//! cluster, or that somebody changed there.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta, Patch};
use kube::discovery::{ApiCapabilities, Discovery, Scope, verbs};
use kube::{Client, ResourceExt as _};
use serde_json::Value;

use crate::declared;
use crate::kubernetes::{Api, each_page};
use crate::manifests::{self, Manifests};
use crate::owned::{FIELD_MANAGER, controller};
use crate::repository::REPOSITORY;
use crate::temporary;

/// Lists under way at once.
const AT_ONCE: usize = 8;
/// What controllers make in numbers: of these, only what carries the label of the app is asked for.
const MADE_IN_NUMBERS: [&str; 5] = ["Pod", "ReplicaSet", "ControllerRevision", "EndpointSlice", "Lease"];
/// Fields of one object that are named.
const NAMED: usize = 3;
/// A cluster that does not say by then what is in it is asked no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the API server and controllers write, beside the declared.
const NOT_DECLARED: [&str; 6] =
    ["managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink"];

/// An applied object that `kubernetes/` no longer has.
pub struct Orphan {
    /// How its kind is served.
    pub api: kube::Api<DynamicObject>,
    /// `kind/name`.
    pub title: String,
    /// Its name.
    pub name: String,
    /// Its identity: another that has come to the name is a different one.
    pub uid: String,
    /// Who else applies it, where somebody does.
    pub shared_with: Option<String>,
}

/// Finds what has left `kubernetes/`: what carries the label of the app, or, from before there was one, what this tool
/// applied; never what a controller made.
///
/// # Errors
/// When the API refuses to say which kinds there are, or to list one of those in use.
pub async fn orphans(client: &Client, namespace: &str, manifests: &Manifests) -> Result<Vec<Orphan>> {
    let find = async {
        let kinds = kinds(client).await?;
        let lists = kinds.into_iter().map(|kind| orphans_of(client, namespace, manifests, kind));
        let found: Vec<Vec<Orphan>> = futures::stream::iter(lists).buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    };
    tokio::time::timeout(PATIENCE, find).await.context("the API server did not list its objects in time")?
}

type Served = (ApiResource, ApiCapabilities);

/// The kinds that can be applied and deleted.
async fn kinds(client: &Client) -> Result<Vec<Served>> {
    let asking = "asking the API server for its kinds";
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) => discovery,
        // A server from before there was one document with all of them.
        Err(_) => Discovery::new(client.clone()).run().await.context(asking)?,
    };
    let kinds = discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
    let is_applied = |(kind, can): &Served| {
        // Events are many, and never applied; APIServices are the cluster's own, and their list may take long while one
        // of them starts.
        !["Event", "APIService"].contains(&&*kind.kind)
            && [verbs::LIST, verbs::PATCH, verbs::DELETE].iter().all(|verb| can.supports_operation(verb))
    };
    Ok(kinds.filter(is_applied).collect())
}

async fn orphans_of(
    client: &Client,
    namespace: &str,
    manifests: &Manifests,
    (resource, can): Served,
) -> Result<Vec<Orphan>> {
    let served = (resource, can.scope == Scope::Namespaced);
    let api = declared::api(client, namespace, &served);
    let (resource, is_namespaced) = served;
    let mut params = ListParams::default();
    if !is_namespaced {
        params = params.labels(&manifests::cluster_wide_selector(namespace));
    } else if MADE_IN_NUMBERS.contains(&&*resource.kind) {
        params = params.labels(&manifests::selector());
    }
    let is_orphan = |object: &PartialObjectMeta<DynamicObject>| {
        is_part_of_app(object)
            && controller(&object.metadata).is_none()
            // A copy of its Service, labels included, that the cluster makes and nobody owns.
            && resource.kind != "Endpoints"
            && object.metadata.deletion_timestamp.is_none()
            && !manifests.hold(&resource.group, &resource.kind, &object.name_any())
    };
    let orphan = |object: PartialObjectMeta<DynamicObject>| Orphan {
        api: api.clone(),
        title: format!("{}/{}", resource.kind.to_lowercase(), object.name_any()),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        shared_with: shared_with(&object),
    };
    let mut orphans = Vec::new();
    let add = |page: Vec<_>| orphans.extend(page.into_iter().filter(&is_orphan).map(&orphan));
    match each_page(params, async |params| api.list_metadata(params).await, add).await {
        // What may not be listed was not applied either.
        Err(kube::Error::Api(status)) if matches!(status.code, 403..=405) => Ok(orphans),
        listed => listed.map(|()| orphans).with_context(|| format!("listing {}", resource.plural)),
    }
}

fn is_part_of_app(object: &PartialObjectMeta<DynamicObject>) -> bool {
    manifests::is_part_of_app(object.labels())
        .unwrap_or_else(|| appliers(object).any(|manager| manager == FIELD_MANAGER))
}

fn appliers(object: &PartialObjectMeta<DynamicObject>) -> impl Iterator<Item = &str> {
    let applied = object.managed_fields().iter().filter(|entry| entry.operation.as_deref() == Some("Apply"));
    applied.filter_map(|entry| entry.manager.as_deref())
}

/// Another tool that applies the object too, and would miss it.
fn shared_with(object: &PartialObjectMeta<DynamicObject>) -> Option<String> {
    const BY_KUBECTL: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let other = appliers(object).find(|manager| *manager != FIELD_MANAGER).map(str::to_owned);
    other.or_else(|| object.annotations().contains_key(BY_KUBECTL).then(|| "kubectl apply".to_owned()))
}

/// What is otherwise in the cluster than in `kubernetes/`.
#[derive(Debug, Default, PartialEq, serde::Serialize)]
pub struct Drift {
    /// Objects that the cluster has not.
    pub missing: Vec<String>,
    /// Objects that it has otherwise.
    pub changed: Vec<Changed>,
    /// Objects that the folder no longer has.
    pub orphans: Vec<String>,
}

/// An object that is not as its manifest says.
#[derive(Debug, PartialEq, serde::Serialize)]
pub struct Changed {
    /// `kind/name`.
    pub object: String,
    /// Where it is written.
    pub place: String,
    /// The fields that an apply would change.
    pub fields: Vec<String>,
}

impl Drift {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Drift::default()
    }

    /// The findings, a line each.
    pub fn lines(&self) -> Vec<String> {
        let missing = self.missing.iter().map(|object| format!("{object} is not in the cluster"));
        let changed = self.changed.iter().map(|Changed { object, place, fields }| {
            let mut line =
                format!("{object} is not as in {place}: {}", fields[..fields.len().min(NAMED)].join(", "));
            if fields.len() > NAMED {
                // Writing to a string never fails.
                let _ = write!(line, " and {} more", fields.len() - NAMED);
            }
            line
        });
        let orphans = self.orphans.iter().map(|object| format!("{object} is no longer in kubernetes/"));
        missing.chain(changed).chain(orphans).collect()
    }

    /// What an apply repairs, and what only pruning does: the option of `up`.
    pub fn cure(&self) -> &'static str {
        if self.orphans.is_empty() { "up" } else { "up --prune" }
    }
}

/// [`look`], by a time in which a cluster that is well has answered.
///
/// # Errors
/// As [`look`]; when it takes longer.
pub async fn look_in_time(client: &Client, namespace: &str, manifests: &Manifests) -> Result<Drift> {
    tokio::time::timeout(PATIENCE, look(client, namespace, manifests)).await.context("no answer in time")?
}

/// Compares the cluster with `kubernetes/`, and changes nothing: the API is asked what an apply would do.
///
/// # Errors
/// When the API refuses.
pub async fn look(client: &Client, namespace: &str, manifests: &Manifests) -> Result<Drift> {
    let outside = declared::outside(client, namespace, manifests, |_| {}).await?;
    let image = deployed_image(client, namespace, manifests).await?;
    let mut drift = Drift::default();
    // What an experiment changes for a while is told by its mark.
    let mut is_marked = false;
    for object in manifests.rendered(namespace, image.as_deref().unwrap_or(REPOSITORY), &outside) {
        let resource = declared::resolve(client, &object).await?;
        let api = declared::api(client, namespace, &resource);
        let title = object.title();
        let Some(live) = api.get_opt(&object.name).await.with_context(|| format!("looking for {title}"))?
        else {
            drift.missing.push(title);
            continue;
        };
        is_marked |= live.annotations().contains_key(temporary::ANNOTATION);
        let body = declared::body(&object, &resource);
        let params = declared::params().dry_run();
        let wanted = api
            .patch(&object.name, &params, &Patch::Apply(&body))
            .await
            .with_context(|| format!("{}: comparing {title} with the cluster's", object.place()))?;
        let mut fields = Vec::new();
        let value = |object: DynamicObject| serde_json::to_value(object).unwrap_or_default();
        differing(&value(live), &value(wanted), "", &mut fields);
        if !fields.is_empty() {
            drift.changed.push(Changed { object: title, place: object.place(), fields });
        }
    }
    if is_marked {
        let app = [
            ("Deployment", Some(manifests.deployment_name())),
            ("HorizontalPodAutoscaler", manifests.autoscaler_name()),
        ];
        let titles = app.map(|(kind, name)| format!("{}/{}", kind.to_lowercase(), name.unwrap_or_default()));
        drift.changed.retain(|changed| !titles.contains(&changed.object));
    }
    let orphans = orphans(client, namespace, manifests).await?;
    drift.orphans = orphans.into_iter().map(|orphan| orphan.title).collect();
    Ok(drift)
}

/// The image that the app's container has in the cluster: which it should have is for a build to say.
async fn deployed_image(client: &Client, namespace: &str, manifests: &Manifests) -> Result<Option<String>> {
    let api: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(client.clone(), namespace);
    let name = manifests.deployment_name();
    let found = api.get_opt(name).await.with_context(|| format!("looking for deployment/{name}"))?;
    let pod = found.and_then(|deployment| deployment.spec?.template.spec);
    let containers = pod.into_iter().flat_map(|pod| pod.containers);
    let mut named = containers.filter(|container| container.name == manifests.container_name());
    Ok(named.next().and_then(|container| container.image))
}

/// The fields in which two objects differ, as kubectl writes a field's path.
fn differing(a: &Value, b: &Value, path: &str, found: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let is_left_out = match path {
                    "" => name == "status",
                    ".metadata" => NOT_DECLARED.contains(&name.as_str()),
                    _ => false,
                };
                if !is_left_out {
                    let none = Value::Null;
                    let (a, b) = (a.get(name).unwrap_or(&none), b.get(name).unwrap_or(&none));
                    differing(a, b, &format!("{path}.{name}"), found);
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differing(a, b, &format!("{path}[{index}]"), found);
            }
        }
        _ if a == b => {}
        _ => found.push(path.trim_start_matches('.').to_owned()),
    }
}

#[cfg(test)]
mod tests;
