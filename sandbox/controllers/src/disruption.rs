//! PodDisruptionBudgets: how many of the pods may be evicted now.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::control::{Controller, Pass};
use crate::pods;

/// How long an eviction that was granted counts though the pod isn't going: Kubernetes' `DeletionTimeout`.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) struct Budgets {
    cluster: Arc<Cluster>,
    changes: Arc<Notify>,
}

impl Budgets {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        let changes = Arc::default();
        cluster.budgets.wake(&changes);
        cluster.pods.wake(&changes);
        cluster.replica_sets.wake(&changes);
        cluster.deployments.wake(&changes);
        Self { cluster: Arc::clone(cluster), changes }
    }

    async fn sync(&self, budget: &PodDisruptionBudget, pass: &mut Pass) -> kube::Result<()> {
        let Some(spec) = &budget.spec else { return Ok(()) };
        let old = budget.status.clone().unwrap_or_default();
        let now = Timestamp::now();
        let mut matching = self.cluster.pods.in_namespace(&budget.namespace().unwrap_or_default());
        let selector =
            spec.selector.clone().and_then(|selector| kube::core::Selector::try_from(selector).ok());
        matching.retain(|pod| {
            !pods::is_finished(pod)
                && selector.as_ref().is_some_and(|selector| pods::selects(selector, &pod.metadata))
        });

        let mut granted = old.disrupted_pods.clone().unwrap_or_default();
        granted.retain(|name, since| {
            let left = EVICTION_TIMEOUT
                .saturating_sub(Duration::try_from(now.duration_since(since.0)).unwrap_or_default());
            let pending =
                matching.iter().any(|pod| pod.name_any() == *name && !pods::is_deleting(&pod.metadata));
            if pending && !left.is_zero() {
                pass.after(left);
            }
            pending && !left.is_zero()
        });
        let healthy = matching.iter().filter(|pod| {
            !pods::is_deleting(&pod.metadata) && pods::is_ready(pod) && !granted.contains_key(&pod.name_any())
        });
        let current = count(healthy.count());
        let (expected, desired) = self.goal(spec, &matching);
        let allowed = if expected > 0 { (current - desired).max(0) } else { 0 };
        let status = PodDisruptionBudgetStatus {
            current_healthy: current,
            desired_healthy: desired,
            disruptions_allowed: allowed,
            expected_pods: expected,
            observed_generation: budget.metadata.generation,
            disrupted_pods: Some(granted).filter(|granted| !granted.is_empty()),
            conditions: Some(vec![condition(&old, allowed > 0, budget.metadata.generation, now)]),
        };
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let updated = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        self.cluster.replace_status(&self.cluster.budgets, &updated).await
    }

    /// How many pods there should be, and how many of them must stay healthy.
    fn goal(&self, spec: &PodDisruptionBudgetSpec, matching: &[Arc<Pod>]) -> (i32, i32) {
        match (&spec.max_unavailable, &spec.min_available) {
            (Some(most), _) => {
                let expected = self.expected(matching);
                (expected, (expected - resolve(most, expected)).max(0))
            }
            (None, Some(IntOrString::Int(least))) => (count(matching.len()), *least),
            (None, Some(least)) => {
                let expected = self.expected(matching);
                (expected, resolve(least, expected))
            }
            (None, None) => (count(matching.len()), 0),
        }
    }

    /// The sizes that the pods' controllers were asked for, each controller counted once.
    fn expected(&self, matching: &[Arc<Pod>]) -> i32 {
        let mut sizes: std::collections::BTreeMap<String, i32> = std::collections::BTreeMap::new();
        for pod in matching {
            let namespace = pod.namespace().unwrap_or_default();
            let Some(owner) = pods::controller_of(&pod.metadata) else {
                sizes.insert(pod.uid().unwrap_or_default(), 1);
                continue;
            };
            let Some(set) = self.cluster.replica_sets.get(&namespace, &owner.name) else { continue };
            let deployment = pods::controller_of(&set.metadata)
                .and_then(|owner| self.cluster.deployments.get(&namespace, &owner.name));
            let (uid, replicas) = match deployment {
                Some(deployment) => {
                    (deployment.uid(), deployment.spec.as_ref().and_then(|spec| spec.replicas))
                }
                None => (set.uid(), set.spec.as_ref().and_then(|spec| spec.replicas)),
            };
            sizes.insert(uid.unwrap_or_default(), replicas.unwrap_or(1));
        }
        sizes.values().sum()
    }
}

impl Controller for Budgets {
    const NAME: &'static str = "disruption";

    fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changes)
    }

    async fn pass(&mut self) -> Pass {
        let mut pass = Pass::default();
        for budget in self.cluster.budgets.all() {
            if let Err(error) = self.sync(&budget, &mut pass).await {
                pass.failed(
                    format_args!("syncing PodDisruptionBudget {}", pods::path(&budget.metadata)),
                    &error,
                );
            }
        }
        pass
    }
}

fn condition(
    old: &PodDisruptionBudgetStatus,
    allowed: bool,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let (status, reason) = if allowed { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let same =
        old.conditions.iter().flatten().find(|old| old.type_ == "DisruptionAllowed" && old.status == status);
    Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        observed_generation: generation,
        last_transition_time: same.map_or(Time(now), |same| same.last_transition_time.clone()),
    }
}

/// A number, or a percentage rounded up.
fn resolve(value: &IntOrString, total: i32) -> i32 {
    match value {
        IntOrString::Int(value) => *value,
        IntOrString::String(text) => {
            let percent: i64 =
                text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or_default();
            i32::try_from((percent.saturating_mul(i64::from(total)).saturating_add(99)) / 100)
                .unwrap_or(i32::MAX)
        }
    }
}

fn count(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}
