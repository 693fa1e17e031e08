//! HorizontalPodAutoscalers (autoscaling/v2) on resource metrics.

mod behavior;
mod conditions;
pub(crate) mod metrics;
mod replicas;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, CrossVersionObjectReference, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use tokio::sync::Notify;

use self::behavior::{Bounds, History};
use self::conditions::Conditions;
use self::replicas::{Proposal, Question, Target};
use crate::cluster::Cluster;
use crate::control::{Controller, Pass, has_code, message};
use crate::pods;

const COMPONENT: &str = "horizontal-pod-autoscaler";
/// Kubernetes looks each 15 s. The sandbox samples its processes more often than that, and people watch it.
const SYNC_PERIOD: Duration = Duration::from_secs(1);
/// While the metrics don't tell yet: the first samples of new pods are about to come.
const WAITING_PERIOD: Duration = Duration::from_millis(100);
/// By then they have come, or never will.
const WAITS_FOR: Duration = Duration::from_secs(10);

pub(crate) struct Autoscalers {
    cluster: Arc<Cluster>,
    changes: Arc<Notify>,
    /// By uid.
    histories: HashMap<String, History>,
}

impl Autoscalers {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        let changes = Arc::default();
        cluster.autoscalers.wake(&changes);
        cluster.deployments.wake(&changes);
        Self { cluster: Arc::clone(cluster), changes, histories: HashMap::new() }
    }

    /// Brings one up to date; after how long it has to be looked at again.
    async fn sync(&mut self, autoscaler: &HorizontalPodAutoscaler) -> kube::Result<Duration> {
        let Some(spec) = &autoscaler.spec else { return Ok(SYNC_PERIOD) };
        let history = self.histories.entry(autoscaler.uid().unwrap_or_default()).or_default();
        let mut run = Run {
            cluster: &self.cluster,
            autoscaler,
            spec,
            history,
            now: Timestamp::now(),
            status: Status::of(autoscaler),
        };
        let outcome = run.scale().await;
        let waits = run
            .status
            .conditions
            .false_since("ScalingActive")
            .is_some_and(|since| run.now.duration_since(since).unsigned_abs() < WAITS_FOR);
        run.write_status().await?;
        outcome.map(|()| if waits { WAITING_PERIOD } else { SYNC_PERIOD })
    }
}

impl Controller for Autoscalers {
    const NAME: &'static str = "autoscaler";

    fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changes)
    }

    async fn pass(&mut self) -> Pass {
        let mut pass = Pass::default();
        let autoscalers = self.cluster.autoscalers.all();
        self.histories.retain(|uid, _| autoscalers.iter().any(|own| own.metadata.uid.as_ref() == Some(uid)));
        if !autoscalers.is_empty() {
            pass.after(SYNC_PERIOD);
        }
        for autoscaler in autoscalers.iter().filter(|own| !pods::is_deleting(&own.metadata)) {
            match self.sync(autoscaler).await {
                Ok(again) => pass.after(again),
                Err(error) => pass.failed(
                    format_args!("syncing HorizontalPodAutoscaler {}", pods::path(&autoscaler.metadata)),
                    &error,
                ),
            }
        }
        pass
    }
}

/// The status as it is being worked out.
struct Status {
    conditions: Conditions,
    current: Option<i32>,
    desired: i32,
    metrics: Vec<MetricStatus>,
    last_scale: Option<Time>,
}

impl Status {
    fn of(autoscaler: &HorizontalPodAutoscaler) -> Self {
        let old = autoscaler.status.clone().unwrap_or_default();
        Self {
            conditions: Conditions::new(old.conditions.unwrap_or_default()),
            current: old.current_replicas,
            desired: old.desired_replicas,
            metrics: old.current_metrics.unwrap_or_default(),
            last_scale: old.last_scale_time,
        }
    }
}

/// One autoscaler in one pass.
struct Run<'a> {
    cluster: &'a Cluster,
    autoscaler: &'a HorizontalPodAutoscaler,
    spec: &'a HorizontalPodAutoscalerSpec,
    history: &'a mut History,
    now: Timestamp,
    status: Status,
}

impl Run<'_> {
    async fn scale(&mut self) -> kube::Result<()> {
        let namespace = self.autoscaler.namespace().unwrap_or_default();
        let target = &self.spec.scale_target_ref;
        let api = target_api(self.cluster, &namespace, target);
        let scale = match api.get_scale(&target.name).await {
            Ok(scale) => scale,
            Err(error) => {
                let why = message(&error);
                self.cluster.events.warning(COMPONENT, self.autoscaler, "FailedGetScale", why.clone());
                let text = format!("the HPA controller was unable to get the target's current scale: {why}");
                self.status.conditions.set("AbleToScale", "False", "FailedGetScale", text, self.now);
                // Looked at again in the next period.
                return if has_code(&error, 404) { Ok(()) } else { Err(error) };
            }
        };
        let text = "the HPA controller was able to get the target's current scale";
        self.status.conditions.set("AbleToScale", "True", "SucceededGetScale", text, self.now);
        let current = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
        self.status.current = Some(scale.status.as_ref().map_or(0, |status| status.replicas));
        let bounds = Bounds { min: self.spec.min_replicas.unwrap_or(1), max: self.spec.max_replicas };
        let Some((desired, why)) = self.desire(&scale, current, bounds).await else {
            self.status.desired = current;
            return Ok(());
        };
        if desired != current {
            let mut scale = scale;
            scale.spec.get_or_insert_default().replicas = Some(desired);
            if let Err(error) = replace_scale(&api, &target.name, &scale).await {
                // Somebody changed the target meanwhile: look again at once.
                if !has_code(&error, 409) {
                    let text = message(&error);
                    let event = format!("New size: {desired}; reason: {why}; error: {text}");
                    self.cluster.events.warning(COMPONENT, self.autoscaler, "FailedRescale", event);
                    let text = format!("the HPA controller was unable to update the target scale: {text}");
                    self.status.conditions.set("AbleToScale", "False", "FailedUpdateScale", text, self.now);
                }
                self.status.desired = current;
                return Err(error);
            }
            let text = format!("the HPA controller was able to update the target scale to {desired}");
            self.status.conditions.set("AbleToScale", "True", "SucceededRescale", text, self.now);
            let event = format!("New size: {desired}; reason: {why}");
            self.cluster.events.normal(COMPONENT, self.autoscaler, "SuccessfulRescale", event);
            self.history.changed(desired - current, self.now);
            self.status.last_scale = Some(Time(self.now));
        }
        self.status.desired = desired;
        Ok(())
    }

    /// The size that should be and why, or `None` when the metrics don't tell.
    async fn desire(&mut self, scale: &Scale, current: i32, bounds: Bounds) -> Option<(i32, String)> {
        if current == 0 && bounds.min != 0 {
            let text = "scaling is disabled since the replica count of the target is zero";
            self.status.conditions.set("ScalingActive", "False", "ScalingDisabled", text, self.now);
            return Some((0, String::new()));
        }
        if current > bounds.max {
            return Some((bounds.max, "Current number of replicas above Spec.MaxReplicas".to_owned()));
        }
        if current < bounds.min {
            return Some((bounds.min, "Current number of replicas below Spec.MinReplicas".to_owned()));
        }
        let (proposed, metric) = match self.propose(scale, current).await {
            Ok(proposal) => proposal,
            Err(why) => {
                self.cluster.events.warning(COMPONENT, self.autoscaler, "FailedComputeMetricsReplicas", why);
                return None;
            }
        };
        let behavior = self.spec.behavior.as_ref();
        let stable = self.history.stabilize(behavior, current, proposed, self.now);
        let (reason, text) =
            stable.why.unwrap_or(("ReadyForNewScale", "recommended size matches current size"));
        self.status.conditions.set("AbleToScale", "True", reason, text, self.now);
        let limited = self.history.limit(behavior, bounds, current, stable.replicas, self.now);
        match limited.why {
            Some((reason, text)) => {
                self.status.conditions.set("ScalingLimited", "True", reason, text, self.now);
            }
            None => {
                let text = "the desired count is within the acceptable range";
                self.status.conditions.set("ScalingLimited", "False", "DesiredWithinRange", text, self.now);
            }
        }
        let why = if limited.replicas > current {
            format!("{metric} above target")
        } else {
            "All metrics below target".to_owned()
        };
        Some((limited.replicas, why))
    }

    /// The largest proposal of the metrics, and the name of the metric that made it.
    async fn propose(&mut self, scale: &Scale, current: i32) -> Result<(i32, String), String> {
        let selector = scale.status.as_ref().and_then(|status| status.selector.clone()).unwrap_or_default();
        if selector.is_empty() {
            let text = "the HPA target's scale is missing a selector";
            self.cluster.events.warning(
                COMPONENT,
                self.autoscaler,
                "SelectorRequired",
                "selector is required",
            );
            self.status.conditions.set("ScalingActive", "False", "InvalidSelector", text, self.now);
            return Err("selector is required".to_owned());
        }
        let metrics = self.metrics();
        let (mut best, mut first_failure, mut failures): (Option<(i32, String)>, Option<Failure>, usize) =
            (None, None, 0);
        let mut statuses = Vec::new();
        for metric in &metrics {
            match self.ask(metric, &selector, current).await {
                Ok((proposal, name, status)) => {
                    statuses.push(status);
                    if best.as_ref().is_none_or(|(replicas, _)| proposal.replicas > *replicas) {
                        best = Some((proposal.replicas, name));
                    }
                }
                Err(failure) => {
                    self.cluster.events.warning(
                        COMPONENT,
                        self.autoscaler,
                        failure.reason,
                        failure.why.clone(),
                    );
                    failures += 1;
                    first_failure.get_or_insert(failure);
                }
            }
        }
        self.status.metrics = statuses;
        // What is known must not shrink what the unknown may need.
        let trusted = best.filter(|(replicas, _)| failures == 0 || *replicas >= current);
        match (trusted, first_failure) {
            (Some((replicas, name)), _) => {
                let text = format!("the HPA was able to successfully calculate a replica count from {name}");
                self.status.conditions.set("ScalingActive", "True", "ValidMetricFound", text, self.now);
                Ok((replicas, name))
            }
            (None, failure) => {
                let failure = failure
                    .unwrap_or(Failure { reason: "InvalidMetricSourceType", why: "no metrics".to_owned() });
                let text = format!("the HPA was unable to compute the replica count: {}", failure.why);
                self.status.conditions.set("ScalingActive", "False", failure.reason, text, self.now);
                let all = metrics.len();
                Err(format!(
                    "invalid metrics ({failures} invalid out of {all}), first error is: {}",
                    failure.why
                ))
            }
        }
    }

    /// The metrics asked for; without any, Kubernetes takes cpu at 80 %.
    fn metrics(&self) -> Vec<MetricSpec> {
        let given = self.spec.metrics.clone().filter(|metrics| !metrics.is_empty());
        given.unwrap_or_else(|| {
            let target = MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(80),
                ..MetricTarget::default()
            };
            let resource =
                k8s_openapi::api::autoscaling::v2::ResourceMetricSource { name: "cpu".to_owned(), target };
            vec![MetricSpec {
                type_: "Resource".to_owned(),
                resource: Some(resource),
                ..MetricSpec::default()
            }]
        })
    }

    async fn ask(
        &self,
        metric: &MetricSpec,
        selector: &str,
        current: i32,
    ) -> Result<(Proposal, String, MetricStatus), Failure> {
        let (resource, container, target, reason) = match (&metric.resource, &metric.container_resource) {
            (Some(source), _) => (&source.name, None, &source.target, "FailedGetResourceMetric"),
            (None, Some(source)) => (
                &source.name,
                Some(source.container.as_str()),
                &source.target,
                "FailedGetContainerResourceMetric",
            ),
            (None, None) => {
                let why = format!("metric source type \"{}\" is not supported by the sandbox", metric.type_);
                return Err(Failure { reason: "InvalidMetricSourceType", why });
            }
        };
        let (goal, quality) = match (target.average_utilization, &target.average_value) {
            (Some(percent), _) => (Target::Utilization(percent), "utilization"),
            (None, Some(value)) => (Target::Average(quantity::milli(&value.0).unwrap_or(1)), "usage"),
            (None, None) => {
                let why = "invalid resource metric source: neither an average utilization nor an average \
                           value target was set";
                return Err(Failure { reason, why: why.to_owned() });
            }
        };
        let fail = |why: String| Failure {
            reason,
            why: format!(
                "failed to get {resource} {quality}: unable to get metrics for resource {resource}: {why}"
            ),
        };
        let namespace = self.autoscaler.namespace().unwrap_or_default();
        let client = &self.cluster.client;
        let samples =
            metrics::usage(client, &namespace, selector, resource, container).await.map_err(fail)?;
        // Listed, so that the API server reads the selector, whatever is in it.
        let listed = self.cluster.api::<Pod>(&namespace).list(&ListParams::default().labels(selector)).await;
        let pods: Vec<Arc<Pod>> = listed
            .map_err(|error| fail(format!("unable to get pods: {}", message(&error))))?
            .0
            .into_iter()
            .map(Arc::new)
            .collect();
        let question = Question { resource, container, target: goal, current, pods: &pods, now: self.now };
        let proposal = question.answer(samples).map_err(|why| {
            let why = format!("failed to get {resource} {quality}: {why}");
            Failure { reason, why }
        })?;
        let value = MetricValueStatus {
            average_utilization: proposal.utilization,
            average_value: Some(Quantity(quantity::from_milli(proposal.average))),
            value: None,
        };
        let percent = if proposal.utilization.is_some() { " (percentage of request)" } else { "" };
        let name = match container {
            Some(_) => format!("{resource} container resource utilization{percent}"),
            None => format!("{resource} resource utilization{percent}"),
        };
        Ok((proposal, name, metric_status(resource, container, value)))
    }

    async fn write_status(&mut self) -> kube::Result<()> {
        let metrics = std::mem::take(&mut self.status.metrics);
        let status = HorizontalPodAutoscalerStatus {
            conditions: Some(self.status.conditions.take()).filter(|conditions| !conditions.is_empty()),
            current_metrics: Some(metrics).filter(|metrics| !metrics.is_empty()),
            current_replicas: self.status.current.filter(|replicas| *replicas != 0),
            desired_replicas: self.status.desired,
            last_scale_time: self.status.last_scale.clone(),
            observed_generation: self.autoscaler.metadata.generation,
        };
        if self.autoscaler.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let updated = HorizontalPodAutoscaler { status: Some(status), ..self.autoscaler.clone() };
        self.cluster.replace_status(&self.cluster.autoscalers, &updated).await
    }
}

/// Why a metric could not be had.
struct Failure {
    reason: &'static str,
    why: String,
}

fn metric_status(resource: &str, container: Option<&str>, current: MetricValueStatus) -> MetricStatus {
    let name = resource.to_owned();
    match container {
        None => MetricStatus {
            type_: "Resource".to_owned(),
            resource: Some(ResourceMetricStatus { name, current }),
            ..MetricStatus::default()
        },
        Some(container) => MetricStatus {
            type_: "ContainerResource".to_owned(),
            container_resource: Some(ContainerResourceMetricStatus {
                container: container.to_owned(),
                name,
                current,
            }),
            ..MetricStatus::default()
        },
    }
}

fn target_api(
    cluster: &Cluster,
    namespace: &str,
    target: &CrossVersionObjectReference,
) -> Api<DynamicObject> {
    let version = target.api_version.as_deref().unwrap_or("apps/v1");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &target.kind));
    Api::namespaced_with(cluster.client.clone(), namespace, &resource)
}

async fn replace_scale(api: &Api<DynamicObject>, name: &str, scale: &Scale) -> kube::Result<()> {
    api.replace_scale(name, &PostParams::default(), scale).await.map(drop)
}
