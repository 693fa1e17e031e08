//! What is done to the cluster in the middle of a load, at a marked moment.

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Preconditions};

use crate::capacity;
use crate::failure::{Attach as _, Exit};
use crate::gates;
use crate::gates::rollout::Rollout;
use crate::ingress_nginx::{DEPLOYMENT as INGRESS_CONTROLLER, NAMESPACE as INGRESS_NAMESPACE};
use crate::kubernetes::{Api, is_ready};
use crate::manifests::Manifests;
use crate::owned::Owner;
use crate::pipeline::{Branch, Outcome, step};
use crate::record::meta::Mark;
use crate::steps::restart::annotate;
use crate::temporary::{App, Changes, Undo};

/// A disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Disturbance {
    /// All pods of the app are replaced.
    Rollout,
    /// From the autoscaler's most replicas, or as many as the nodes hold, to its fewest.
    ScaleDown,
    /// One pod is deleted with the grace it asks for.
    PodDelete,
    /// One pod is deleted without any grace.
    PodKill,
    /// The ingress controller is replaced.
    IngressRestart,
}

/// The autoscaler that a scale-down needs.
///
/// # Errors
/// When there is none.
pub(super) fn autoscaler(manifests: &Manifests) -> Result<&str> {
    manifests
        .autoscaler_name()
        .ok_or_else(|| anyhow!("there is no autoscaler in kubernetes/, so nothing scales down"))
        .hint("take another --during")
}

/// A disturbance that is prepared; the moment is the caller's.
pub(super) struct Prepared<'p> {
    what: Disturbance,
    app: App<'p>,
    scale: Option<Scale<'p>>,
}

impl Disturbance {
    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// The name of the step before a scale-down.
pub(super) const SCALE_UP: &str = "scale-up";

/// A scale-down to come.
struct Scale<'p> {
    autoscaler: &'p str,
    from: i32,
    to: i32,
}

impl<'p> Prepared<'p> {
    /// Does what has to be done before the load.
    ///
    /// # Errors
    /// When the API refuses, or the pods for a scale-down do not come up.
    pub(super) async fn new(
        branch: &mut Branch<'_>,
        changes: &mut Changes<'p>,
        what: Disturbance,
        manifests: &'p Manifests,
    ) -> Result<Prepared<'p>> {
        let scale = match what {
            Disturbance::ScaleDown => Some(scale_up(branch, changes, manifests).await?),
            _ => None,
        };
        Ok(Prepared { what, app: changes.app, scale })
    }

    /// Does it.
    ///
    /// # Errors
    /// When the API refuses.
    pub(super) async fn disturb(&self) -> Result<Mark> {
        let at = Timestamp::now();
        let App { client, namespace, deployment, .. } = self.app;
        let what = match self.what {
            Disturbance::Rollout => {
                annotate(client, namespace, deployment).await?;
                format!("rollout of deployment/{deployment}")
            }
            Disturbance::ScaleDown => {
                let Scale { autoscaler, from, to } =
                    self.scale.as_ref().context("the replicas before are not known")?;
                hold(&self.app, autoscaler, *to).await?;
                format!("scale-down from {from} to {to}")
            }
            Disturbance::PodDelete => self.delete(&DeleteParams::default(), "deleted").await?,
            Disturbance::PodKill => {
                self.delete(&DeleteParams::default().grace_period(0), "deleted without a grace period")
                    .await?
            }
            Disturbance::IngressRestart => {
                annotate(client, INGRESS_NAMESPACE, INGRESS_CONTROLLER).await?;
                format!("restart of deployment/{INGRESS_CONTROLLER}")
            }
        };
        Ok(Mark { at, what })
    }

    async fn delete(&self, params: &DeleteParams, how: &str) -> Result<String> {
        let App { client, namespace, deployment, .. } = self.app;
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let own = Owner::of(client, namespace, deployment).await?.pods().await?;
        let is_well = |pod: &&Pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
        let pod =
            own.iter().find(is_well).ok_or_else(|| anyhow!("no pod of deployment/{deployment} is Ready"))?;
        let name = pod.name_any();
        // Another pod that has come to that name is not the one that was looked at.
        let this = Preconditions { uid: pod.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(this), ..params.clone() };
        pods.delete(&name, &params).await.with_context(|| format!("deleting {name}"))?;
        Ok(format!("pod {name} {how}"))
    }
}

/// Keeps the Deployment at so many replicas.
async fn hold(app: &App<'_>, autoscaler: &str, replicas: i32) -> Result<()> {
    app.bound(autoscaler, Some(replicas), replicas).await?;
    // The autoscaler looks only now and then; the bound holds from now on.
    app.scale(replicas).await
}

/// Scales to the autoscaler's most replicas, or to as many as there is room for.
async fn scale_up<'p>(
    branch: &mut Branch<'_>,
    changes: &mut Changes<'p>,
    manifests: &'p Manifests,
) -> Result<Scale<'p>> {
    let (cx, app) = (branch.cx, changes.app);
    let autoscaler = autoscaler(manifests)?;
    let scaled = step(branch, SCALE_UP, async |_| {
        let before = cx.unless_stopped(Before::look(&app, autoscaler)).await?;
        let Before { replicas, min, max, room, .. } = before;
        let (from, to) = (max.min(room), min.unwrap_or(1));
        let short =
            format!("room for {room} of the {max} replicas that the autoscaler allows: {}", before.free);
        if from <= to {
            return Err(anyhow!("there is nothing to scale down: {short}; it keeps at least {to}"))
                .hint(format!("`{}` says what makes room", cx.commands.xtask("doctor")))
                .exit(Exit::Preflight);
        }
        let undo = vec![Undo::Autoscaler { name: autoscaler.to_owned(), min, max }, Undo::Replicas(replicas)];
        changes.begin(&format!("scaled up from {replicas} to {from} replicas"), undo).await?;
        cx.unless_stopped(hold(&app, autoscaler, from)).await?;
        let how = format!("from {replicas} to {from} replicas");
        let how = if from < max { format!("{how}; {short}") } else { how };
        Ok(Outcome::Did(Scale { autoscaler, from, to }, how))
    })
    .await?;
    let Scale { from, to, .. } = *scaled;
    let target = Rollout { min_replicas: Some(from), ..Rollout::as_deployed(app.namespace, manifests) };
    gates::settled::wait(branch, app.client, &target).await?;
    Ok(Scale { autoscaler, from, to })
}

/// How many replicas there are, how many there may be, and how many there is room for.
struct Before {
    replicas: i32,
    min: Option<i32>,
    max: i32,
    room: i32,
    /// What is free of the resource that is scarce.
    free: String,
}

impl Before {
    async fn look(app: &App<'_>, autoscaler: &str) -> Result<Before> {
        let App { client, namespace, deployment, .. } = *app;
        let hpas: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), namespace);
        let hpa = hpas.get(autoscaler).await.with_context(|| format!("reading hpa/{autoscaler}"))?;
        let bounds = hpa.spec.context("the autoscaler has no spec")?;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let found = deployments.get(deployment).await;
        let found = found.with_context(|| format!("reading deployment/{deployment}"))?;
        let spec = found.spec.context("the Deployment has no spec")?;
        let pod = spec.template.spec.unwrap_or_default();
        let rooms = capacity::rooms(client, namespace, deployment, &pod).await?;
        let need = capacity::requests(&pod);
        let free = capacity::scarcest(&rooms, &need).map(|resource| capacity::free(&rooms, resource));
        Ok(Before {
            replicas: spec.replicas.unwrap_or(1),
            min: bounds.min_replicas,
            max: bounds.max_replicas,
            room: i32::try_from(capacity::fit(&rooms, &need)).unwrap_or(i32::MAX),
            free: free.unwrap_or_else(|| "no node takes the pods".to_owned()),
        })
    }
}
