//! What has left `kubernetes/` and lives on in the cluster: named, and removed where that is asked for.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Preconditions};
use kube::runtime::wait::{await_condition, conditions};

use crate::clusters::{Cluster, Kind};
use crate::cx::Cx;
use crate::drift::{self, Orphan};
use crate::manifests::Manifests;
use crate::pipeline::{Branch, Done, Outcome, Running, step};
use crate::plan::Planned;

/// Longer than the pods' grace period (45 s in `kubernetes/`), within which the kubelet ends them.
const GONE_WITHIN: Duration = Duration::from_secs(120);

/// Its name.
const NAME: &str = "prune";

/// What it would do: a cluster that runs is asked what there is.
///
/// # Errors
/// When the run is told to stop.
pub async fn plan(cx: &Cx, kind: &Kind, manifests: &Manifests, prune: bool) -> Result<Planned> {
    let namespace = &cx.shared.namespace;
    let mut does = vec![format!("list every kind's metadata in {namespace}, for what has left kubernetes/")];
    let found = cx.unless_stopped(async {
        let Some(cluster) = kind.find(cx).await? else { return Ok(None) };
        drift::orphans(&cluster.client, namespace, manifests).await.map(Some)
    });
    let verb = if prune { "delete" } else { "name" };
    match found.await {
        Ok(Some(orphans)) if orphans.is_empty() => {
            does.push(format!("{verb} nothing, as the cluster is now"));
        }
        Ok(Some(orphans)) => {
            let left_alone = |orphan: &Orphan| orphan.shared_with.as_ref().filter(|_| prune).cloned();
            does.extend(orphans.iter().map(|orphan| match left_alone(orphan) {
                Some(other) => format!("leave {} alone, which {other} applies too", orphan.title),
                None => format!("{verb} {}", orphan.title),
            }));
        }
        Err(error) if cx.is_stopped() => return Err(error),
        Ok(None) | Err(_) => does.push(format!("{verb} each")),
    }
    Ok(Planned::step(NAME, does))
}

/// Names the orphans; with `prune`, removes them and waits until they are gone. What another tool applies too is left
/// alone.
///
/// # Errors
/// With `prune`, when the API refuses; without it that is a warning.
pub async fn run(
    branch: &mut Branch<'_>,
    cluster: &Cluster,
    manifests: &Manifests,
    prune: bool,
) -> Result<Done<()>> {
    let cx = branch.cx;
    step(branch, NAME, async |step| {
        let look = drift::orphans(&cluster.client, &cx.shared.namespace, manifests);
        let orphans = match cx.unless_stopped(look).await {
            Err(error) if !prune && !cx.is_stopped() => {
                let why = crate::failure::paragraph(&error);
                step.warn(format!("whether anything has left kubernetes/ can't be told: {why}"));
                return Ok(Outcome::Already((), "skipped".to_owned()));
            }
            found => found.context("looking for what has left kubernetes/")?,
        };
        if orphans.is_empty() {
            return Ok(Outcome::Already((), "nothing has left kubernetes/".to_owned()));
        }
        if prune {
            let removed = cx.unless_stopped(remove(step, orphans)).await?;
            return Ok(match removed.as_slice() {
                [] => Outcome::Already((), "nothing of this tool's alone has left kubernetes/".to_owned()),
                removed => Outcome::Did((), format!("removed {}", removed.join(", "))),
            });
        }
        for orphan in &orphans {
            step.warn(format!("{} is no longer in kubernetes/, and still in the cluster", orphan.title));
        }
        let cure = cx.commands.xtask("up --prune");
        let count = orphans.len();
        let what = if count == 1 { "1 object".to_owned() } else { format!("{count} objects") };
        Ok(Outcome::Already((), format!("{what} left alone; `{cure}` removes what has left kubernetes/")))
    })
    .await
}

/// Removes orphans, but for those that another tool applies too. Returns what was removed.
///
/// # Errors
/// When the API refuses, or one does not go.
pub(crate) async fn remove(step: &Running<'_>, orphans: Vec<Orphan>) -> Result<Vec<String>> {
    let (shared, own): (Vec<_>, Vec<_>) =
        orphans.into_iter().partition(|orphan| orphan.shared_with.is_some());
    for Orphan { title, shared_with, .. } in &shared {
        let other = shared_with.as_deref().unwrap_or_default();
        step.warn(format!("{title} is applied by {other} too: left alone"));
    }
    for Orphan { api, name, title, uid, .. } in &own {
        let this = Preconditions { uid: Some(uid.clone()), resource_version: None };
        // As kubectl prunes: what it owns goes behind it.
        let params = DeleteParams { preconditions: Some(this), ..DeleteParams::background() };
        match api.delete(name, &params).await {
            // Gone in between, or replaced by another.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            deleted => {
                deleted.with_context(|| format!("removing {title}"))?;
            }
        }
    }
    let removed = own.into_iter().map(async |Orphan { api, name, title, uid, .. }| {
        gone(api, &name, &uid).await.with_context(|| format!("removing {title}"))?;
        step.at(format!("{title} removed"));
        Ok(title)
    });
    try_join_all(removed).await
}

/// Waits until an object is gone: it stays until the last of its pods has drained.
///
/// # Errors
/// When it does not go in time.
pub(crate) async fn gone(api: Api<DynamicObject>, name: &str, uid: &str) -> Result<()> {
    let gone = await_condition(api, name, conditions::is_deleted(uid));
    tokio::time::timeout(GONE_WITHIN, gone)
        .await
        .with_context(|| format!("it is still there after {} s", GONE_WITHIN.as_secs()))??;
    Ok(())
}
