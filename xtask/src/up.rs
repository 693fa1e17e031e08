//! `cargo xtask up`: the whole procedure, in order. This function *is* the order.

use anyhow::Result;

use crate::clusters::{self, Cluster};
use crate::cx::Cx;
use crate::gates;
use crate::manifests::Manifests;
use crate::pipeline::{all3, both};
use crate::steps;
use crate::steps::restart::Restart;
use crate::summary::{Summary, entry};

/// Runs the pipeline; run again, it goes on from what is there.
///
/// # Errors
/// The first step or gate that fails.
pub async fn run(cx: &Cx) -> Result<Summary> {
    let choice = clusters::choose(cx).await?;
    cx.output.note(&format!("{}: {}", choice.kind.name(), choice.why));

    let checked = steps::preflight::run(cx, &choice).await?;
    let manifests = &checked.manifests;
    let cluster = &steps::cluster::run(cx, &choice, &[checked.id]).await?;

    let metrics = steps::metrics::run(cx, cluster);
    let deploy = async {
        let ingress = steps::ingress::run(cx, cluster, manifests);
        let image = async {
            let weights = steps::weights::run(cx, &[checked.id]).await?;
            steps::image::run(cx, cluster, &weights).await
        };
        // The Ingress is applied with all else, and its webhook refuses it until the controller serves.
        let (ingress, image) = both(ingress, image).await?;
        let applied = steps::apply::run(cx, cluster, manifests, &image, &[ingress.id, image.id]).await?;
        let rollout =
            steps::restart::run(cx, cluster, manifests, &image, &applied, Restart::IfNeeded).await?;
        Ok((ingress, image, rollout))
    };
    let (metrics, (ingress, image, rollout)) = both(metrics, deploy).await?;

    let autoscaler = async {
        let Some(hpa) = manifests.autoscaler_name() else { return Ok(()) };
        let after = [metrics.id, rollout.id];
        gates::autoscaler::wait(cx, &cluster.client, &cx.shared.namespace, hpa, &after).await.map(drop)
    };
    let (_, (), prediction) = all3(
        steps::route::run(cx, cluster, manifests, &[ingress.id, rollout.id]),
        autoscaler,
        steps::smoke::run(cx, cluster, manifests, &[rollout.id]),
    )
    .await?;
    say_where(cx, cluster, manifests);
    let mut summary = entry(cluster, manifests);
    summary.insert("image".into(), image.reference.as_str().into());
    summary.insert("prediction".into(), prediction.class_name.as_str().into());
    Ok(summary)
}

/// The last words of a run that ends well: how to use what it made.
pub fn say_where(cx: &Cx, cluster: &Cluster, manifests: &Manifests) {
    cx.output.note(&format!("\nready: curl -H 'Host: {}' {}/health", manifests.host(), cluster.entry));
}
