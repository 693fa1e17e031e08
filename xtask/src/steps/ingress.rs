//! The ingress controller is on, led, and takes our Ingress.

use anyhow::Result;

use crate::clusters::Cluster;
use crate::gates;
use crate::manifests::Manifests;
use crate::pipeline::{Branch, Done, Handoff, step};
use crate::plan::Planned;

/// Its name.
const NAME: &str = "ingress";

/// What it would do; `commands` are the kind's own.
pub fn plan(commands: Vec<String>) -> Planned {
    Planned::step(NAME, commands).gate(&gates::ingress_lease::GATE).gate(&gates::ingress_controller::GATE)
}

/// Switches the ingress controller on, and hands over `open` when both of its gates have passed. The gates are watched
/// from the start: minikube's command goes on, for a minute or more, to verify what they judge better, and ends by
/// writing the profile.
///
/// # Errors
/// When it can't be switched on, or a gate fails.
pub async fn run(
    branch: &mut Branch<'_>,
    cluster: &Done<Cluster>,
    manifests: &Manifests,
    open: &Handoff<()>,
) -> Result<()> {
    let (cx, client) = (branch.cx, &cluster.client);
    let enable = async |branch: &mut Branch<'_>| {
        step(branch, NAME, async |step| cluster.kind.enable_ingress(cx, step, cluster).await).await
    };
    let pass = async |branch: &mut Branch<'_>| {
        if !cluster.nginx {
            open.give(branch, ());
            return Ok(());
        }
        branch
            .both(
                async |branch| gates::ingress_lease::wait(branch, client).await,
                async |branch| {
                    let namespace = &cx.shared.namespace;
                    gates::ingress_controller::wait(branch, client, &manifests.ingress, namespace).await
                },
            )
            .await?;
        open.give(branch, ());
        Ok(())
    };
    branch.both(enable, pass).await.map(drop)
}
