//! The ingress controller is on, led, and takes our Ingress.

use anyhow::Result;

use crate::clusters::Cluster;
use crate::cx::Cx;
use crate::gates;
use crate::manifests::Manifests;
use crate::pipeline::{Done, both, step};

/// Switches the ingress controller on and passes both of its gates.
///
/// # Errors
/// When it can't be switched on, or a gate fails.
pub async fn run(cx: &Cx, cluster: &Done<Cluster>, manifests: &Manifests) -> Result<Done<()>> {
    let on =
        step(cx, "ingress", &[cluster.id], async |step| cluster.kind.enable_ingress(cx, step, cluster).await)
            .await?;
    let (client, after) = (&cluster.client, [on.id]);
    let (_, controller) = both(
        gates::ingress_lease::wait(cx, client, &after),
        gates::ingress_controller::wait(cx, client, &manifests.ingress, &cx.shared.namespace, &after),
    )
    .await?;
    Ok(on.behind(&controller))
}
