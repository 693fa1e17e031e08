//! Rollout restart, and the gate behind it: the newest pods are available, and they run the built image.

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

use crate::clusters::Cluster;
use crate::gates;
use crate::gates::rollout::{RolledOut, Rollout};
use crate::manifests::Manifests;
use crate::pipeline::{Branch, Done, Outcome, step};
use crate::steps::apply::Applied;
use crate::steps::image::ImageRef;

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
    step(branch, "restart", async |_| {
        if applied.template_changed {
            return Ok(Outcome::Already((), "the changed Deployment is being rolled out".to_owned()));
        }
        if restart == Restart::IfNeeded {
            return Ok(Outcome::Already((), "skipped: pod template unchanged".to_owned()));
        }
        cx.unless_stopped(annotate(&cluster.client, &cx.shared.namespace, name)).await?;
        Ok(Outcome::Did((), format!("deployment/{name} restarted")))
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
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let now = jiff::Timestamp::now().to_string();
    let patch = serde_json::json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}});
    let params = PatchParams { field_manager: Some(RESTART_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(name, &params, &Patch::Merge(&patch))
        .await
        .with_context(|| format!("restarting deployment/{name}"))?;
    Ok(())
}
