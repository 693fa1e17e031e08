//! `cargo xtask up`: the whole procedure, in order. This function *is* the order.

use anyhow::Result;

use crate::clusters::{self, Choice, Cluster, Kind};
use crate::cx::Cx;
use crate::gates;
use crate::gates::rollout::Rollout;
use crate::image::{Compiled, ImageRef};
use crate::manifests::Manifests;
use crate::options::Deploy;
use crate::pipeline::{Branch, Done, Handoff};
use crate::plan::Planned;
use crate::steps;
use crate::steps::apply::Known;
use crate::steps::preflight::Checked;
use crate::steps::restart::Restart;
use crate::steps::smoke::Prediction;
use crate::steps::weights::Weights;
use crate::summary::Summary;

/// Runs the pipeline; run again, it goes on from what is there.
///
/// # Errors
/// The first step or gate that fails.
pub async fn run(branch: &mut Branch<'_>, deploy: Deploy) -> Result<Summary> {
    let cx = branch.cx;
    let choice = clusters::choose(cx).await?;
    cx.output.note(&format!("{}: {}", choice.kind.name(), choice.why));
    let Up { cluster, checked, image, prediction, .. } =
        bring_up(branch, &choice, deploy, &Known::default()).await?;
    say_where(cx, &cluster, &checked.manifests);
    let mut summary = cluster.summary(&checked.manifests);
    summary.insert("image".into(), image.reference.as_str().into());
    summary.insert("prediction".into(), prediction.class_name.as_str().into());
    Ok(summary)
}

/// What is up.
pub struct Up {
    /// The cluster.
    pub cluster: Done<Cluster>,
    /// What was applied.
    pub checked: Done<Checked>,
    /// The model's weights.
    pub weights: Done<Weights>,
    /// The app's image.
    pub image: Done<ImageRef>,
    /// What the app answered.
    pub prediction: Done<Prediction>,
}

/// The pipeline itself.
///
/// # Errors
/// The first step or gate that fails.
pub async fn bring_up(branch: &mut Branch<'_>, choice: &Choice, deploy: Deploy, known: &Known) -> Result<Up> {
    let checked = steps::preflight::run(branch, choice).await?;
    let manifests = &checked.manifests;
    // Weights and binary need no cluster, and are handed to the image.
    let prepared = Handoff::new();
    let prepare = async |branch: &mut Branch<'_>| {
        let compile = async |branch: &mut Branch<'_>| steps::compile::run(branch, &choice.kind).await;
        let both = branch.both(steps::weights::run, compile).await?;
        prepared.give(branch, both);
        Ok(())
    };
    let start_and_deploy = async |branch: &mut Branch<'_>| {
        let cluster = steps::cluster::run(branch, choice, manifests).await?;
        let deployed = deploy_to(branch, &cluster, manifests, deploy, known, &prepared).await?;
        Ok((cluster, deployed))
    };
    // In this order: where the cluster is a program of this workspace too, Cargo builds that first.
    let ((cluster, (weights, image, prediction)), ()) = branch.both(start_and_deploy, prepare).await?;
    Ok(Up { cluster, checked, weights, image, prediction })
}

/// The weights, and the binary where it is compiled.
type Prepared = (Done<Weights>, Done<Option<Compiled>>);

/// What comes behind a cluster that runs.
async fn deploy_to(
    branch: &mut Branch<'_>,
    cluster: &Done<Cluster>,
    manifests: &Manifests,
    deploy: Deploy,
    known: &Known,
    prepared: &Handoff<Prepared>,
) -> Result<(Done<Weights>, Done<ImageRef>, Done<Prediction>)> {
    let cx = branch.cx;
    // Handed to the one that needs them; nothing else waits for a metrics server.
    let metrics = Handoff::new();
    let measure = async |branch: &mut Branch<'_>| {
        let on = steps::metrics::run(branch, cluster).await?;
        metrics.give(branch, on);
        Ok(())
    };
    // Handed over when its gates are open: what the addon's command does after that holds up nothing.
    let ingress = Handoff::new();
    let control =
        async |branch: &mut Branch<'_>| steps::ingress::run(branch, cluster, manifests, &ingress).await;
    let rest = async |branch: &mut Branch<'_>| {
        let (weights, compiled) = prepared.take(branch).await?;
        let image = steps::image::run(branch, cluster, weights, compiled.as_ref()).await?;
        let applied = steps::apply::run(branch, cluster, manifests, &image, known, Some(&ingress)).await?;
        steps::restart::run(branch, cluster, manifests, &image, &applied, Restart::IfNeeded).await?;
        // What has left is in nobody's way, and to list every kind may take as long as the slowest server of them.
        let prune =
            async |branch: &mut Branch<'_>| steps::prune::run(branch, cluster, manifests, deploy.prune).await;
        let autoscale = async |branch: &mut Branch<'_>| {
            let Some(hpa) = manifests.autoscaler_name() else { return Ok(()) };
            metrics.take(branch).await?;
            gates::autoscaler::wait(branch, &cluster.client, &cx.shared.namespace, hpa).await.map(drop)
        };
        let rest = async |branch: &mut Branch<'_>| {
            let target = Rollout::built(&cx.shared.namespace, manifests, &image);
            let settle =
                async |branch: &mut Branch<'_>| gates::settled::wait(branch, &cluster.client, &target).await;
            branch.both(settle, autoscale).await
        };
        let check = async |branch: &mut Branch<'_>| {
            branch.both(async |branch| verify(branch, cluster, manifests).await, rest).await
        };
        let (_, (prediction, _)) = branch.both(prune, check).await?;
        Ok((weights.clone(), image, prediction))
    };
    let current = async |branch: &mut Branch<'_>| steps::current::run(branch, cluster).await;
    // In this order: minikube switches one addon on at a time, and that of metrics takes seconds.
    let switch_on_and_deploy = async |branch: &mut Branch<'_>| {
        let (_, (_, deployed)) =
            branch.both(measure, async |branch| branch.both(control, rest).await).await?;
        Ok(deployed)
    };
    branch.both(current, switch_on_and_deploy).await.map(|((), deployed)| deployed)
}

/// What [`run`] would do, in the order in which a step's turn comes at the earliest.
///
/// # Errors
/// When the cluster's own tool can't be asked.
pub async fn plan(cx: &Cx, kind: &Kind, manifests: &Manifests, deploy: Deploy) -> Result<Vec<Planned>> {
    let commands = kind.plan(cx).await?;
    let mut plan = vec![steps::preflight::plan(), steps::cluster::plan(cx, commands.cluster)];
    plan.extend(steps::current::plan(commands.current));
    plan.extend([
        steps::ingress::plan(commands.ingress),
        steps::metrics::plan(commands.metrics),
        steps::weights::plan(cx),
        steps::compile::plan(kind)?,
        steps::image::plan(commands.image),
        steps::apply::plan(cx, manifests),
        steps::restart::plan(manifests, Restart::IfNeeded),
        steps::prune::plan(cx, kind, manifests, deploy.prune).await?,
    ]);
    plan.extend(verify_plan(manifests));
    if let Some(hpa) = manifests.autoscaler_name() {
        plan.push(Planned::gates(vec![format!("watch hpa/{hpa}")], vec![&gates::autoscaler::GATE]));
    }
    Ok(plan)
}

/// What [`verify`] would do, and the gate that is watched beside it.
pub(crate) fn verify_plan(manifests: &Manifests) -> [Planned; 3] {
    let settled = format!("watch deployment/{} and its pods", manifests.deployment_name());
    let settled = Planned::gates(vec![settled], vec![&gates::settled::GATE]);
    [steps::route::plan(manifests), steps::smoke::plan(), settled]
}

/// The new version answers: by the real entry, and asked pod by pod.
///
/// # Errors
/// When the route's gate or the smoke test fails.
pub(crate) async fn verify(
    branch: &mut Branch<'_>,
    cluster: &Cluster,
    manifests: &Manifests,
) -> Result<Done<Prediction>> {
    let (_, prediction) = branch
        .both(
            async |branch| steps::route::run(branch, cluster, manifests).await,
            async |branch| steps::smoke::run(branch, cluster, manifests).await,
        )
        .await?;
    Ok(prediction)
}

/// The last words of a run that ends well: how to use what it made.
pub fn say_where(cx: &Cx, cluster: &Cluster, manifests: &Manifests) {
    if let Some(how) = &cluster.tunnel {
        let forward = "-n ingress-nginx port-forward deployment/ingress-nginx-controller 8080:80";
        let forward = if cluster.nginx {
            format!("; `{}` opens one", cx.commands.kubectl(forward))
        } else {
            String::new()
        };
        return cx
            .output
            .note(&format!("\nready: reached through {how}, which ends with this command{forward}"));
    }
    cx.output.note(&format!("\nready: curl -H 'Host: {}' {}/health", manifests.host(), cluster.entry));
}
