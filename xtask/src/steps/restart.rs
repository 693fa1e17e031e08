//! Rollout restart, and the gate behind it: the newest pods are available, and they run the built image.

use anyhow::{Context as _, Result};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};

use crate::clusters::Cluster;
use crate::gates;
use crate::gates::rollout::{RolledOut, Rollout};
use crate::image::ImageRef;
use crate::manifests::Manifests;
use crate::pipeline::{Branch, Done, Outcome, step};
use crate::plan::Planned;
use crate::steps::apply::{Applied, Stale};

/// As kubectl writes it: with the same manager, the next server-side apply leaves the restart alone.
const RESTART_MANAGER: &str = "kubectl-rollout";
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Whether a restart is asked for, or only what the apply made necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// `redeploy`: the pods are replaced in any case.
    Always,
    /// `up`: not if the pods that run are the right ones.
    IfNeeded,
}

/// Its name.
const NAME: &str = "restart";

/// What it would do.
pub fn plan(manifests: &Manifests, restart: Restart) -> Planned {
    let patch = format!("patch deployment/{}, annotation {RESTARTED_AT}", manifests.deployment_name());
    let unchanged = match restart {
        Restart::Always => patch.as_str(),
        Restart::IfNeeded => "nothing",
    };
    let does = vec![
        "if apply changed the pod template: nothing, it is a rollout already".to_owned(),
        format!("if it put back what the pods read: {patch}"),
        format!("if the pod template is unchanged: {unchanged}"),
    ];
    Planned::step(NAME, does).gate(&gates::rollout::GATE)
}

/// Restarts the rollout where that is needed, and waits until it is complete.
///
/// # Errors
/// When the API refuses, or the gate fails.
pub async fn run(
    branch: &mut Branch<'_>,
    cluster: &Done<Cluster>,
    manifests: &Manifests,
    image: &Done<ImageRef>,
    applied: &Done<Applied>,
    restart: Restart,
) -> Result<Done<RolledOut>> {
    let cx = branch.cx;
    let name = manifests.deployment_name();
    step(branch, NAME, async |_| {
        let namespace = &cx.shared.namespace;
        let mut restarted = Vec::new();
        for Stale { kind, name, put_back } in &applied.stale {
            cx.unless_stopped(restart_workload(&cluster.client, namespace, kind, name)).await?;
            let title = format!("{}/{name}", kind.to_lowercase());
            restarted.push(format!("{title} restarted, since {} was put back", put_back.join(", ")));
        }
        let is_stale = applied.stale.iter().any(|stale| stale.kind == "Deployment" && stale.name == name);
        if restart == Restart::Always && !is_stale && !applied.template_changed {
            cx.unless_stopped(annotate(&cluster.client, namespace, name)).await?;
            restarted.push(format!("deployment/{name} restarted"));
        }
        Ok(match (restarted.as_slice(), applied.template_changed) {
            ([_, ..], _) => Outcome::Did((), restarted.join("; ")),
            ([], true) => Outcome::Already((), "the changed Deployment is being rolled out".to_owned()),
            ([], false) => Outcome::Already((), "skipped: pod template unchanged".to_owned()),
        })
    })
    .await?;
    let target = Rollout::built(&cx.shared.namespace, manifests, image);
    gates::rollout::wait(branch, &cluster.client, &target).await
}

/// Restarts a Deployment's rollout as `kubectl rollout restart` does.
///
/// # Errors
/// When the API refuses.
pub(crate) async fn annotate(client: &Client, namespace: &str, name: &str) -> Result<()> {
    restart_workload(client, namespace, "Deployment", name).await
}

async fn restart_workload(client: &Client, namespace: &str, kind: &str, name: &str) -> Result<()> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let now = jiff::Timestamp::now().to_string();
    let patch = serde_json::json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}});
    let params = PatchParams { field_manager: Some(RESTART_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(name, &params, &Patch::Merge(&patch))
        .await
        .with_context(|| format!("restarting {}/{name}", kind.to_lowercase()))?;
    Ok(())
}
