//! `cargo xtask down`: removes exactly what `up` made.

use anyhow::{Context as _, Result, anyhow};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, DynamicObject};

use crate::clusters::{self, Cluster, Kind};
use crate::cx::Cx;
use crate::declared;
use crate::drift;
use crate::failure::{Attach as _, Exit};
use crate::kubernetes::Api;
use crate::manifests::{Manifests, Object};
use crate::owned::FIELD_MANAGER;
use crate::pipeline::{Branch, Done, Outcome, Running, step};
use crate::plan::Planned;
use crate::steps::cluster::MADE_BY;
use crate::steps::prune::{self, gone};
use crate::summary::Summary;

/// The names of its steps.
const REMOVE: &str = "remove";
const STOP: &str = "stop";

/// Deletes the app's objects, then does to the cluster what its kind says: the sandbox ends, a minikube profile
/// goes on unless `delete` is asked for.
///
/// # Errors
/// When the API refuses or the cluster can't be stopped.
pub async fn run(branch: &mut Branch<'_>, delete: bool) -> Result<Summary> {
    let cx = branch.cx;
    let choice = clusters::choose(cx).await?;
    if let (Kind::Context(context), true) = (&choice.kind, delete) {
        return Err(anyhow!(
            "--delete deletes what this tool has made, and it has not made the cluster of {}",
            context.name()
        ))
        .hint(format!("`{}` removes the app from it", cx.commands.xtask("down")))
        .exit(Exit::Usage);
    }
    if let Some(cluster) = left_behind(cx, &choice.kind, delete).await? {
        let manifests = crate::manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace)?;
        remove(branch, &cluster, &manifests).await?;
    }
    step(branch, STOP, async |step| choice.kind.stop(cx, step, delete).await).await?;
    Ok(Summary::new())
}

/// The cluster, where it goes on without the app: objects of one that goes as a whole go with it.
async fn left_behind(cx: &Cx, kind: &Kind, delete: bool) -> Result<Option<Cluster>> {
    let goes = delete || matches!(kind, Kind::Sandbox(_));
    if goes { Ok(None) } else { kind.find(cx).await }
}

/// What [`run`] would do.
///
/// # Errors
/// When the cluster runs but can't be spoken to.
pub async fn plan(cx: &Cx, kind: &Kind, manifests: &Manifests, delete: bool) -> Result<Vec<Planned>> {
    let mut plan = Vec::new();
    if left_behind(cx, kind, delete).await?.is_some() {
        let objects = manifests.objects.iter().rev();
        let declared = objects.map(|object| format!("delete {} if this tool applied it", object.title()));
        let namespace = match kind {
            Kind::Context(_) => "leave the namespace",
            _ => "delete the namespace if this tool made it",
        };
        let rest = ["delete what has left kubernetes/", namespace];
        plan.push(Planned::step(REMOVE, declared.chain(rest.map(str::to_owned)).collect()));
    }
    let stop = match kind {
        Kind::Sandbox(_) => "end the sandbox, its pods with it",
        Kind::Context(_) => "leave the cluster running",
        Kind::Minikube(_) if delete => "minikube delete",
        Kind::Minikube(_) => "leave the profile running",
    };
    plan.push(Planned::step(STOP, vec![stop.to_owned()]));
    Ok(plan)
}

async fn remove(branch: &mut Branch<'_>, cluster: &Cluster, manifests: &Manifests) -> Result<Done<()>> {
    let cx = branch.cx;
    step(branch, REMOVE, async |step| {
        let mut going = Vec::new();
        // Last applied, first removed: the Ingress before what it routes to.
        for object in manifests.objects.iter().rev() {
            let resource = cx.unless_stopped(declared::resolve(&cluster.client, object)).await?;
            let api = declared::api(&cluster.client, &cx.shared.namespace, &resource);
            let deleted = cx.unless_stopped(delete(step, &api, object)).await;
            let uid = deleted.with_context(|| format!("removing {}", object.title()))?;
            going.extend(uid.map(|uid| (api, object, uid)));
        }
        let removed = going.len();
        let gone = going.into_iter().map(async |(api, object, uid)| {
            gone(api, &object.name, &uid).await.with_context(|| format!("removing {}", object.title()))?;
            step.at(format!("{} removed", object.title()));
            anyhow::Ok(())
        });
        cx.unless_stopped(try_join_all(gone)).await?;
        let left = drift::orphans(&cluster.client, &cx.shared.namespace, manifests);
        let left = cx.unless_stopped(left).await.context("looking for what has left kubernetes/")?;
        let removed = removed + cx.unless_stopped(prune::remove(step, left)).await?.len();
        // In a cluster of others it stays: who has but a role in it may not even look at namespaces.
        let stays = if let Kind::Context(_) = cluster.kind {
            format!(", namespace {} stays", cx.shared.namespace)
        } else {
            cx.unless_stopped(remove_namespace(cx, cluster)).await?;
            String::new()
        };
        Ok(match removed {
            0 => Outcome::Already((), "the app is not in the cluster".to_owned()),
            _ => Outcome::Did((), format!("{removed} objects removed{stays}")),
        })
    })
    .await
}

/// Tells the API to delete an object that this tool applied; its uid, where there is one.
async fn delete(
    step: &Running<'_>,
    api: &kube::Api<DynamicObject>,
    object: &Object,
) -> Result<Option<String>> {
    let Some(found) = api.get_opt(&object.name).await? else { return Ok(None) };
    if !was_applied_here(&found) {
        step.warn(format!("{} was not applied by this tool: left alone", object.title()));
        return Ok(None);
    }
    api.delete(&object.name, &DeleteParams::foreground()).await?;
    Ok(Some(found.uid().unwrap_or_default()))
}

fn was_applied_here(object: &DynamicObject) -> bool {
    object.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

async fn remove_namespace(cx: &Cx, cluster: &Cluster) -> Result<()> {
    let name = &cx.shared.namespace;
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let found = api.get_opt(name).await.with_context(|| format!("looking for namespace {name}"))?;
    let (key, value) = MADE_BY;
    if found.is_some_and(|namespace| namespace.labels().get(key).is_some_and(|v| v == value)) {
        api.delete(name, &DeleteParams::default())
            .await
            .with_context(|| format!("removing namespace {name}"))?;
    }
    Ok(())
}
