//! The app's image, in the cluster.

use anyhow::Result;

use crate::clusters::Cluster;
use crate::gates;
use crate::image::{Compiled, ImageRef, Recipe};
use crate::pipeline::{Branch, Done, step};
use crate::plan::Planned;
use crate::repository::REPOSITORY;
use crate::steps::weights::Weights;

/// Its name.
const NAME: &str = "image";

/// What it would do; `commands` are the kind's own.
pub fn plan(commands: Vec<String>) -> Planned {
    let tag =
        format!("{REPOSITORY}:TAG, a hash of app/, Cargo.lock and the weights; if it is there: nothing");
    Planned::step(NAME, [vec![tag], commands].concat()).gate(&gates::image::GATE)
}

/// Gets the image into the cluster and passes its gate; `compiled` is the app's binary, where it was compiled before.
///
/// # Errors
/// When the build fails, or the cluster knows another image than the one just built.
pub async fn run(
    branch: &mut Branch<'_>,
    cluster: &Done<Cluster>,
    weights: &Done<Weights>,
    compiled: Option<&Compiled>,
) -> Result<Done<ImageRef>> {
    let cx = branch.cx;
    let image = step(branch, NAME, async |step| {
        let recipe = Recipe::of(&cx.root, &weights.dir, &weights.manifest.sha256, compiled)?;
        cluster.kind.build_image(cx, step, cluster, &recipe).await
    })
    .await?;
    gates::image::wait(branch, cluster, &image).await?;
    Ok(image)
}
