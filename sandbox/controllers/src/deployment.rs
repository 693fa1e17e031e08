//! Deployments: a ReplicaSet for each pod template, and the way from one to the next.
//!
//! The arithmetic is that of Kubernetes' deployment controller (`pkg/controller/deployment`), so that a rollout passes
//! through the same states here as there.

mod new_set;
mod rolling;
mod scale;
mod status;
mod template;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::control::{Controller, Pass, has_code};
use crate::pods;
use crate::replica_set::owner_reference;

const COMPONENT: &str = "deployment-controller";
const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
const HASH_LABEL: &str = "pod-template-hash";

pub(crate) struct Deployments {
    cluster: Arc<Cluster>,
    changes: Arc<Notify>,
}

impl Deployments {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        let changes = Arc::default();
        cluster.deployments.wake(&changes);
        cluster.replica_sets.wake(&changes);
        // Recreate waits for the old pods to be gone.
        cluster.pods.wake(&changes);
        Self { cluster: Arc::clone(cluster), changes }
    }
}

impl Controller for Deployments {
    const NAME: &'static str = "deployment";

    fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changes)
    }

    async fn pass(&mut self) -> Pass {
        let mut pass = Pass::default();
        for deployment in self.cluster.deployments.all() {
            let path = pods::path(&deployment.metadata);
            let Some(mut rollout) = Rollout::new(&self.cluster, &deployment) else { continue };
            if let Err(error) = rollout.sync(&mut pass).await {
                pass.failed(format_args!("syncing Deployment {path}"), &error);
            }
        }
        pass
    }
}

/// One Deployment in one pass.
struct Rollout<'a> {
    cluster: &'a Cluster,
    /// As the cache had it.
    deployment: Arc<Deployment>,
    spec: &'a DeploymentSpec,
    replicas: i32,
    /// Being edited; written with the status at the end.
    conditions: Vec<DeploymentCondition>,
    collisions: Option<i32>,
    now: Timestamp,
}

impl<'a> Rollout<'a> {
    fn new(cluster: &'a Cluster, deployment: &'a Arc<Deployment>) -> Option<Self> {
        let spec = deployment.spec.as_ref()?;
        // A selector that selects everything is refused by Kubernetes too.
        pods::selector(&spec.selector)?;
        let status = deployment.status.clone().unwrap_or_default();
        Some(Self {
            cluster,
            deployment: Arc::clone(deployment),
            spec,
            replicas: spec.replicas.unwrap_or(1).min(MOST_PODS),
            conditions: status.conditions.unwrap_or_default(),
            collisions: status.collision_count,
            now: Timestamp::now(),
        })
    }

    async fn sync(&mut self, pass: &mut Pass) -> kube::Result<()> {
        if pods::is_deleting(&self.deployment.metadata) {
            let status = self.calculate_status();
            return self.write_status(status).await;
        }
        self.claim().await?;
        self.note_paused();
        if self.paused() || self.is_scaling_event() {
            self.find_new_set().await?;
            self.scale().await?;
            if self.paused() {
                self.remove_old_sets().await?;
            }
            let status = self.calculate_status();
            return self.write_status(status).await;
        }
        let advanced = if self.is_recreate() { self.recreate().await } else { self.roll().await };
        // What went wrong belongs into the status too.
        let status = self.rollout_status(pass);
        self.write_status(status).await?;
        advanced
    }

    fn paused(&self) -> bool {
        self.spec.paused == Some(true)
    }

    fn is_recreate(&self) -> bool {
        self.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
    }

    /// Every ReplicaSet of this Deployment, oldest first.
    fn sets(&self) -> Vec<Arc<ReplicaSet>> {
        let uid = self.deployment.metadata.uid.as_deref().unwrap_or_default();
        let mut sets = self.cluster.replica_sets.in_namespace(&self.namespace());
        sets.retain(|set| pods::controller_of(&set.metadata).is_some_and(|owner| owner.uid == uid));
        sets.sort_by_key(|set| (set.creation_timestamp().map(|time| time.0), set.name_any()));
        sets
    }

    /// The set whose template is the Deployment's. With several, the oldest.
    fn new_set(&self) -> Option<Arc<ReplicaSet>> {
        self.sets().into_iter().find(|set| {
            let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            own.is_some_and(|own| template::equal(own, &self.spec.template))
        })
    }

    /// The others, oldest first.
    fn old_sets(&self) -> Vec<Arc<ReplicaSet>> {
        let new = self.new_set().and_then(|set| set.uid());
        let mut sets = self.sets();
        sets.retain(|set| set.uid() != new);
        sets
    }

    fn namespace(&self) -> String {
        self.deployment.namespace().unwrap_or_default()
    }

    /// How many pods more than asked for a rolling update may run.
    fn max_surge(&self) -> i32 {
        self.fenceposts().0
    }

    /// How many of the pods asked for may be unavailable.
    fn max_unavailable(&self) -> i32 {
        self.fenceposts().1.min(self.replicas)
    }

    fn fenceposts(&self) -> (i32, i32) {
        if self.is_recreate() {
            return (0, 0);
        }
        let rolling = self
            .spec
            .strategy
            .as_ref()
            .and_then(|strategy| strategy.rolling_update.clone())
            .unwrap_or_default();
        let quarter = || IntOrString::String("25%".to_owned());
        let surge = resolve(&rolling.max_surge.unwrap_or_else(quarter), self.replicas, true);
        let unavailable = resolve(&rolling.max_unavailable.unwrap_or_else(quarter), self.replicas, false);
        // Percentages may both come out as none, and then nothing would ever move.
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    /// Adopts matching ReplicaSets that nobody manages, and lets go of own ones that don't match any more.
    async fn claim(&self) -> kube::Result<()> {
        let Some(selector) = pods::selector(&self.spec.selector) else { return Ok(()) };
        let uid = self.deployment.uid().unwrap_or_default();
        for set in self.cluster.replica_sets.in_namespace(&self.namespace()) {
            if pods::is_deleting(&set.metadata) {
                continue;
            }
            let mut owners: Vec<OwnerReference> = set.owner_references().to_vec();
            match (pods::controller_of(&set.metadata), pods::selects(&selector, &set.metadata)) {
                (None, true) if self.cluster.may_adopt(&*self.deployment).await? => {
                    owners.push(owner_reference(&*self.deployment));
                }
                (Some(owner), false) if owner.uid == uid => owners.retain(|owner| owner.uid != uid),
                _ => continue,
            }
            let patch = serde_json::json!({ "ownerReferences": owners });
            self.cluster.patch_metadata(&self.cluster.replica_sets, &*set, patch).await?;
        }
        Ok(())
    }

    /// Removes old, empty ReplicaSets beyond `revisionHistoryLimit`.
    async fn remove_old_sets(&self) -> kube::Result<()> {
        let Some(limit) = self.spec.revision_history_limit else { return Ok(()) };
        let mut old = self.old_sets();
        old.retain(|set| !pods::is_deleting(&set.metadata));
        old.sort_by_key(|set| template::revision(set.annotations()));
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        for set in old.iter().take(surplus) {
            let status = set.status.clone().unwrap_or_default();
            let seen = status.observed_generation >= set.metadata.generation;
            if status.replicas != 0 || set_replicas(set) != 0 || !seen {
                continue;
            }
            let api = self.cluster.api::<ReplicaSet>(&self.namespace());
            match api.delete(&set.name_any(), &kube::api::DeleteParams::background()).await {
                Err(error) if !has_code(&error, 404) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a pod of an old ReplicaSet still runs, those that are being deleted included.
    fn old_pods_run(&self) -> bool {
        let old: HashSet<String> = self.old_sets().iter().filter_map(|set| set.uid()).collect();
        self.cluster.pods.in_namespace(&self.namespace()).iter().any(|pod| {
            !pods::is_finished(pod)
                && pods::controller_of(&pod.metadata).is_some_and(|owner| old.contains(&owner.uid))
        })
    }
}

/// More than any node runs, and few enough to be added up.
const MOST_PODS: i32 = 1_000_000;

/// `spec.replicas` of a set.
fn set_replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1).min(MOST_PODS)
}

fn sum_replicas(sets: &[Arc<ReplicaSet>]) -> i32 {
    sets.iter().map(|set| set_replicas(set)).sum()
}

/// How many available pods a set has and keeps. Its status may still count some that it was already told to delete.
fn available(set: &ReplicaSet) -> i32 {
    let counted = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default();
    counted.min(set_replicas(set))
}

/// A number, or a percentage of `total`. What is malformed counts as none; the API server refuses it.
fn resolve(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(value) => (*value).clamp(0, MOST_PODS),
        IntOrString::String(text) => {
            let percent: i64 =
                text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or_default();
            let hundredfold = percent.max(0).saturating_mul(i64::from(total));
            let rounded = if round_up { hundredfold.saturating_add(99) / 100 } else { hundredfold / 100 };
            i32::try_from(rounded).unwrap_or(MOST_PODS).min(MOST_PODS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_surge_up_and_unavailable_down() {
        let quarter = IntOrString::String("25%".to_owned());
        assert_eq!((resolve(&quarter, 3, true), resolve(&quarter, 3, false)), (1, 0));
        assert_eq!((resolve(&quarter, 10, true), resolve(&quarter, 10, false)), (3, 2));
        assert_eq!(resolve(&IntOrString::Int(2), 10, true), 2);
        assert_eq!(resolve(&IntOrString::String("x".to_owned()), 10, true), 0);
    }
}
