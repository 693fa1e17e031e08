//! `cargo xtask smoke`: is the app that runs now well?

use anyhow::Result;

use crate::clusters;
use crate::pipeline::Branch;
use crate::plan::Planned;
use crate::steps;
use crate::summary::Summary;
use crate::temporary::{self, App};

/// Asks the newest Ready pod for its health and for a prediction.
///
/// # Errors
/// When no cluster runs (exit code 10), or an answer breaks the contract.
pub async fn run(branch: &mut Branch<'_>) -> Result<Summary> {
    let cx = branch.cx;
    let choice = clusters::choose(cx).await?;
    let cluster = choice.kind.expect(cx).await?;
    let manifests = crate::manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace)?;
    cx.shows(cluster.watched(&manifests, &cx.shared.namespace));
    let left = temporary::warn(cx, App::of(cx, &cluster, &manifests)).await;
    steps::smoke::run(branch, &cluster, &manifests).await?;
    let mut summary = cluster.summary(&manifests);
    summary.extend(left);
    Ok(summary)
}

/// What [`run`] would do.
pub fn plan() -> Vec<Planned> {
    vec![steps::smoke::plan()]
}
