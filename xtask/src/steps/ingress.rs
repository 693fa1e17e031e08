//! The ingress controller is on, led, and takes our Ingress.

use anyhow::Result;

use crate::clusters::Cluster;
use crate::gates;
use crate::manifests::Manifests;
use crate::pipeline::{Branch, Done, step};

/// Switches the ingress controller on and passes both of its gates.
///
/// # Errors
/// When it can't be switched on, or a gate fails.
pub async fn run(
    branch: &mut Branch<'_>,
    cluster: &Done<Cluster>,
    manifests: &Manifests,
) -> Result<Done<()>> {
    let (cx, client) = (branch.cx, &cluster.client);
    let on =
        step(branch, "ingress", async |step| cluster.kind.enable_ingress(cx, step, cluster).await).await?;
    branch
        .both(
            async |branch| gates::ingress_lease::wait(branch, client).await,
            async |branch| {
                let namespace = &cx.shared.namespace;
                gates::ingress_controller::wait(branch, client, &manifests.ingress, namespace).await
            },
        )
        .await?;
    Ok(on)
}
