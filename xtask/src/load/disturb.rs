//! What is done to the cluster in the middle of a load, at a marked moment.

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::failure::Attach as _;
use crate::gates;
use crate::gates::ingress_lease::NAMESPACE as INGRESS_NAMESPACE;
use crate::gates::rollout::Rollout;
use crate::manifests::Manifests;
use crate::owned::Owner;
use crate::pipeline::Branch;
use crate::record::meta::Mark;
use crate::steps::apply::FIELD_MANAGER;
use crate::steps::restart::annotate;

/// The ingress controller's Deployment.
const INGRESS_CONTROLLER: &str = "ingress-nginx-controller";

/// A disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Disturbance {
    /// All pods of the app are replaced.
    Rollout,
    /// From the autoscaler's most replicas to its fewest.
    ScaleDown,
    /// One pod is deleted with the grace it asks for.
    PodDelete,
    /// One pod is deleted without any grace.
    PodKill,
    /// The ingress controller is replaced.
    IngressRestart,
}

/// A disturbance that is prepared; the moment is the caller's.
pub(super) struct Prepared<'p> {
    what: Disturbance,
    client: &'p Client,
    namespace: &'p str,
    manifests: &'p Manifests,
    /// The autoscaler's bounds before, where they were moved.
    bounds: Option<(i32, i32)>,
}

impl<'p> Prepared<'p> {
    /// Does what has to be done before the load.
    ///
    /// # Errors
    /// When the API refuses, or the pods for a scale-down do not come up.
    pub(super) async fn new(
        branch: &mut Branch<'_>,
        what: Disturbance,
        client: &'p Client,
        namespace: &'p str,
        manifests: &'p Manifests,
    ) -> Result<Prepared<'p>> {
        let mut prepared = Prepared { what, client, namespace, manifests, bounds: None };
        if what == Disturbance::ScaleDown {
            let name = prepared.autoscaler()?;
            let hpa: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), namespace);
            let spec = hpa.get(name).await.with_context(|| format!("reading hpa/{name}"))?.spec;
            let spec = spec.context("the autoscaler has no spec")?;
            let (fewest, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
            prepared.bounds = Some((fewest, most));
            let up = async {
                prepared.bound(most, most).await?;
                let target =
                    Rollout { min_replicas: Some(most), ..Rollout::as_deployed(namespace, manifests) };
                gates::settled::wait(branch, client, &target).await
            };
            if let Err(error) = up.await {
                prepared.restore().await?;
                return Err(error);
            }
        }
        Ok(prepared)
    }

    /// Does it.
    ///
    /// # Errors
    /// When the API refuses.
    pub(super) async fn disturb(&self) -> Result<Mark> {
        let at = Timestamp::now();
        let what = match self.what {
            Disturbance::Rollout => {
                let name = self.manifests.deployment_name();
                annotate(self.client, self.namespace, name).await?;
                format!("rollout of deployment/{name}")
            }
            Disturbance::ScaleDown => {
                let (fewest, most) = self.bounds.context("the bounds before are not known")?;
                self.bound(fewest, fewest).await?;
                format!("scale-down from {most} to {fewest}")
            }
            Disturbance::PodDelete => self.delete(&DeleteParams::default(), "deleted").await?,
            Disturbance::PodKill => {
                self.delete(&DeleteParams::default().grace_period(0), "deleted without a grace period")
                    .await?
            }
            Disturbance::IngressRestart => {
                annotate(self.client, INGRESS_NAMESPACE, INGRESS_CONTROLLER).await?;
                format!("restart of deployment/{INGRESS_CONTROLLER}")
            }
        };
        Ok(Mark { at, what })
    }

    /// Puts back what was moved.
    ///
    /// # Errors
    /// When the API refuses.
    pub(super) async fn restore(&self) -> Result<()> {
        match self.bounds {
            Some((fewest, most)) => self.bound(fewest, most).await,
            None => Ok(()),
        }
    }

    fn autoscaler(&self) -> Result<&'p str> {
        self.manifests
            .autoscaler_name()
            .ok_or_else(|| anyhow!("there is no autoscaler in kubernetes/, so nothing scales down"))
            .hint("take another --during")
    }

    async fn bound(&self, fewest: i32, most: i32) -> Result<()> {
        let name = self.autoscaler()?;
        let hpa: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), self.namespace);
        let spec = json!({"spec": {"minReplicas": fewest, "maxReplicas": most}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        hpa.patch(name, &params, &Patch::Merge(spec))
            .await
            .with_context(|| format!("bounding hpa/{name} to {fewest} and {most}"))?;
        // The autoscaler looks only now and then; the bound holds from now on.
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), self.namespace);
        let name = self.manifests.deployment_name();
        let now =
            deployments.get_scale(name).await.with_context(|| format!("reading the scale of {name}"))?;
        let replicas = now.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        if replicas.clamp(fewest, most) != replicas {
            let scale = json!({"spec": {"replicas": replicas.clamp(fewest, most)}});
            deployments
                .patch_scale(name, &PatchParams::default(), &Patch::Merge(scale))
                .await
                .with_context(|| format!("scaling deployment/{name}"))?;
        }
        Ok(())
    }

    async fn delete(&self, params: &DeleteParams, how: &str) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        let deployment = self.manifests.deployment_name();
        let own = Owner::of(self.client, self.namespace, deployment).await?.pods().await?;
        let is_well = |pod: &&Pod| gates::pod::is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
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
