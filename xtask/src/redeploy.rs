//! `cargo xtask redeploy`: build, apply, restart and verify, on a cluster that `up` made.

use anyhow::Result;

use crate::clusters::{self, Kind};
use crate::cx::Cx;
use crate::gates;
use crate::gates::rollout::Rollout;
use crate::manifests::Manifests;
use crate::options::Deploy;
use crate::pipeline::Branch;
use crate::plan::Planned;
use crate::steps;
use crate::steps::apply::Known;
use crate::steps::restart::Restart;
use crate::summary::Summary;
use crate::up::{say_where, verify, verify_plan};

/// Runs the part of the pipeline that an edit of the app or of the manifests needs.
///
/// # Errors
/// When no cluster runs (exit code 10); the first step or gate that fails.
pub async fn run(branch: &mut Branch<'_>, deploy: Deploy) -> Result<Summary> {
    let cx = branch.cx;
    let choice = clusters::choose(cx).await?;
    cx.output.note(&format!("{}: {}", choice.kind.name(), choice.why));
    choice.kind.expect(cx).await?;

    let checked = steps::preflight::run(branch, &choice).await?;
    let manifests = &checked.manifests;
    let start = async |branch: &mut Branch<'_>| steps::cluster::run(branch, &choice, manifests).await;
    let (cluster, weights) = branch.both(start, steps::weights::run).await?;
    let cluster = &cluster;
    let image = steps::image::run(branch, cluster, &weights, None).await?;
    let applied = steps::apply::run(branch, cluster, manifests, &image, &Known::default(), None).await?;
    steps::restart::run(branch, cluster, manifests, &image, &applied, Restart::Always).await?;
    let since_begin = |what: &str| {
        let seconds = cx.began.elapsed().as_secs_f64();
        cx.output.note(&format!("the new version {what} after {seconds:.1} s"));
        seconds
    };
    let serve = async |branch: &mut Branch<'_>| {
        verify(branch, cluster, manifests).await.map(|_| since_begin("serves"))
    };
    let settle = async |branch: &mut Branch<'_>| {
        let target = Rollout::built(&cx.shared.namespace, manifests, &image);
        let settled = gates::settled::wait(branch, &cluster.client, &target).await;
        settled.map(|_| since_begin("is alone"))
    };
    let (_, (serves, alone)) = branch
        .both(
            async |branch| steps::prune::run(branch, cluster, manifests, deploy.prune).await,
            async |branch| branch.both(serve, settle).await,
        )
        .await?;
    say_where(cx, cluster, manifests);
    let mut summary = cluster.summary(manifests);
    summary.insert("serves_after_seconds".into(), serves.into());
    summary.insert("alone_after_seconds".into(), alone.into());
    Ok(summary)
}

/// What [`run`] would do, in its order.
///
/// # Errors
/// When the cluster's own tool can't be asked.
pub async fn plan(cx: &Cx, kind: &Kind, manifests: &Manifests, deploy: Deploy) -> Result<Vec<Planned>> {
    let commands = kind.plan(cx).await?;
    let mut plan = vec![
        steps::preflight::plan(),
        steps::cluster::plan(cx, commands.cluster),
        steps::weights::plan(cx),
        steps::image::plan(commands.image),
        steps::apply::plan(cx, manifests),
        steps::restart::plan(manifests, Restart::Always),
        steps::prune::plan(cx, kind, manifests, deploy.prune).await?,
    ];
    plan.extend(verify_plan(manifests));
    Ok(plan)
}
