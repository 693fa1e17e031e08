//! `cargo xtask redeploy`: build, apply, restart and verify, on a cluster that `up` made.

use anyhow::Result;

use crate::clusters;
use crate::cx::Cx;
use crate::pipeline::both;
use crate::steps;
use crate::steps::restart::Restart;
use crate::summary::{Summary, entry};
use crate::up::say_where;

/// Runs the part of the pipeline that an edit of the app or of the manifests needs.
///
/// # Errors
/// When no cluster runs (exit code 10); the first step or gate that fails.
pub async fn run(cx: &Cx) -> Result<Summary> {
    let choice = clusters::choose(cx).await?;
    cx.output.note(&format!("{}: {}", choice.kind.name(), choice.why));
    choice.kind.expect(cx).await?;

    let checked = steps::preflight::run(cx, &choice).await?;
    let manifests = &checked.manifests;
    let cluster = &steps::cluster::run(cx, &choice, &[checked.id]).await?;
    let weights = steps::weights::run(cx, &[checked.id]).await?;
    let image = steps::image::run(cx, cluster, &weights).await?;
    let applied = steps::apply::run(cx, cluster, manifests, &image, &[image.id]).await?;
    let rollout = steps::restart::run(cx, cluster, manifests, &image, &applied, Restart::Always).await?;
    both(
        steps::route::run(cx, cluster, manifests, &[rollout.id]),
        steps::smoke::run(cx, cluster, manifests, &[rollout.id]),
    )
    .await?;
    say_where(cx, cluster, manifests);
    Ok(entry(cluster, manifests))
}
