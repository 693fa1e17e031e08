//! ReplicaSets: as many pods as asked for, adopted or created, and deleted in Kubernetes' order of preference.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::api::DeleteParams;
use kube::core::Selector;
use kube::{Resource, ResourceExt as _};
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::control::{Controller, Pass, has_code, message};
use crate::pods;

const COMPONENT: &str = "replicaset-controller";

pub(crate) struct ReplicaSets {
    cluster: Arc<Cluster>,
    changes: Arc<Notify>,
    /// Pods (uids) whose deletion the API server has accepted: no replicas any more, whatever the cache says.
    deleting: HashSet<String>,
}

impl ReplicaSets {
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        let changes = Arc::default();
        cluster.replica_sets.wake(&changes);
        cluster.pods.wake(&changes);
        Self { cluster: Arc::clone(cluster), changes, deleting: HashSet::new() }
    }

    async fn sync(&mut self, set: &ReplicaSet, now: Timestamp, pass: &mut Pass) -> kube::Result<()> {
        let Some(spec) = &set.spec else { return Ok(()) };
        let Some(selector) = pods::selector(&spec.selector) else { return Ok(()) };
        if !pods::is_deleting(&set.metadata) {
            self.claim(set, &selector).await?;
        }
        let failure = if pods::is_deleting(&set.metadata) { None } else { self.scale(set).await.err() };
        let owned = self.owned(set);
        let (active, ended): (Vec<Arc<Pod>>, _) = owned.into_iter().partition(|pod| self.is_active(pod));
        let terminating = ended.iter().filter(|pod| !pods::is_finished(pod)).count();
        let min_ready = seconds(spec.min_ready_seconds);
        let waits: Vec<Duration> =
            active.iter().filter_map(|pod| pods::until_available(pod, min_ready, now)).collect();
        pass.after_some(waits.iter().copied().filter(|wait| !wait.is_zero()).min());
        let template_labels =
            spec.template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.clone());
        let labelled = active.iter().filter(|pod| {
            template_labels.iter().flatten().all(|(key, value)| pod.labels().get(key) == Some(value))
        });
        let status = ReplicaSetStatus {
            replicas: count(active.len()),
            fully_labeled_replicas: Some(count(labelled.count())),
            ready_replicas: Some(count(active.iter().filter(|pod| pods::is_ready(pod)).count())),
            available_replicas: Some(count(waits.iter().filter(|wait| wait.is_zero()).count())),
            terminating_replicas: Some(count(terminating)),
            observed_generation: set.metadata.generation,
            conditions: conditions(set, failure.as_ref(), count(active.len()), now),
        };
        self.write_status(set, status).await?;
        failure.map_or(Ok(()), Err)
    }

    async fn write_status(&self, set: &ReplicaSet, mut status: ReplicaSetStatus) -> kube::Result<()> {
        // Kubernetes leaves zero counts out.
        for field in [
            &mut status.fully_labeled_replicas,
            &mut status.ready_replicas,
            &mut status.available_replicas,
            &mut status.terminating_replicas,
        ] {
            *field = field.filter(|count| *count != 0);
        }
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let updated = ReplicaSet { status: Some(status), ..set.clone() };
        self.cluster.replace_status(&self.cluster.replica_sets, &updated).await
    }

    fn is_active(&self, pod: &Pod) -> bool {
        pods::is_active(pod) && !self.deleting.contains(pod.metadata.uid.as_deref().unwrap_or_default())
    }

    fn owned(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut pods = self.cluster.pods.in_namespace(set.metadata.namespace.as_deref().unwrap_or_default());
        pods.retain(|pod| pods::controller_of(&pod.metadata).is_some_and(|owner| owner.uid == uid));
        pods
    }

    /// Adopts matching pods that nobody manages, and lets go of own ones that don't match any more.
    async fn claim(&self, set: &ReplicaSet, selector: &Selector) -> kube::Result<()> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        for pod in self.cluster.pods.in_namespace(set.metadata.namespace.as_deref().unwrap_or_default()) {
            if pods::is_deleting(&pod.metadata) {
                continue;
            }
            let mut owners: Vec<OwnerReference> = pod.owner_references().to_vec();
            match (pods::controller_of(&pod.metadata), pods::selects(selector, &pod.metadata)) {
                (None, true) if pods::is_active(&pod) && self.cluster.may_adopt(set).await? => {
                    owners.push(owner_reference(set));
                }
                (Some(owner), false) if owner.uid == uid => owners.retain(|owner| owner.uid != uid),
                _ => continue,
            }
            let patch = serde_json::json!({ "ownerReferences": owners });
            match self.cluster.patch_metadata(&self.cluster.pods, &*pod, patch).await {
                Err(error) if !has_code(&error, 404) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn active(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        self.owned(set).into_iter().filter(|pod| self.is_active(pod)).collect()
    }

    /// How many pods there are too many; negative when there are too few.
    fn surplus(&self, set: &ReplicaSet) -> i32 {
        count(self.active(set).len()) - set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    async fn scale(&mut self, set: &ReplicaSet) -> kube::Result<()> {
        let mut active = self.active(set);
        let surplus = self.surplus(set);
        for _ in surplus..0 {
            match self.cluster.create(&self.cluster.pods, &new_pod(set)).await {
                Ok(pod) => {
                    let message = format!("Created pod: {}", pod.name_any());
                    self.cluster.events.normal(COMPONENT, set, "SuccessfulCreate", message);
                }
                Err(error) => {
                    let message = format!("Error creating: {}", message(&error));
                    self.cluster.events.warning(COMPONENT, set, "FailedCreate", message);
                    return Err(error);
                }
            }
        }
        if surplus > 0 {
            active.sort_by_cached_key(|pod| deletion_rank(pod));
            for pod in active.iter().take(usize::try_from(surplus).unwrap_or_default()) {
                self.delete(set, pod).await?;
            }
        }
        Ok(())
    }

    async fn delete(&mut self, set: &ReplicaSet, pod: &Pod) -> kube::Result<()> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let uid = pod.uid().unwrap_or_default();
        let only_this = kube::api::Preconditions { uid: Some(uid.clone()), resource_version: None };
        let parameters = DeleteParams::background().preconditions(only_this);
        match self.cluster.api::<Pod>(&namespace).delete(&name, &parameters).await {
            Ok(left) => {
                if let Some(pod) = left.filter(|pod| pods::is_deleting(&pod.metadata)) {
                    self.cluster.pods.observe(pod);
                }
                self.cluster.events.normal(
                    COMPONENT,
                    set,
                    "SuccessfulDelete",
                    format!("Deleted pod: {name}"),
                );
            }
            // Gone already, or another pod of the same name.
            Err(error) if has_code(&error, 404) || has_code(&error, 409) => {}
            Err(error) => {
                let message = format!("Error deleting: {}", message(&error));
                self.cluster.events.warning(COMPONENT, set, "FailedDelete", message);
                return Err(error);
            }
        }
        self.deleting.insert(uid);
        Ok(())
    }
}

impl Controller for ReplicaSets {
    const NAME: &'static str = "replicaset";

    fn changes(&self) -> Arc<Notify> {
        Arc::clone(&self.changes)
    }

    async fn pass(&mut self) -> Pass {
        let mut pass = Pass::default();
        let known: HashSet<String> = self.cluster.pods.all().iter().filter_map(|pod| pod.uid()).collect();
        self.deleting.retain(|uid| known.contains(uid));
        let now = Timestamp::now();
        let mut sets = self.cluster.replica_sets.all();
        // Deletions first: the two sets of a rollout may have changed together, and never shall there be more pods than
        // both were meant to have.
        sets.sort_by_cached_key(|set| Reverse(self.surplus(set)));
        for set in sets {
            if let Err(error) = self.sync(&set, now, &mut pass).await {
                pass.failed(format_args!("syncing ReplicaSet {}", pods::path(&set.metadata)), &error);
            }
        }
        pass
    }
}

/// Which pods to delete first; the smallest key goes first. Kubernetes' `ActivePodsWithRanks`, without the count of
/// neighbours on the same node.
fn deletion_rank(pod: &Pod) -> impl Ord + use<> {
    let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let phase = match pods::phase(pod) {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let cost = pod.annotations().get("controller.kubernetes.io/pod-deletion-cost");
    let cost: i32 = cost.and_then(|cost| cost.parse().ok()).unwrap_or_default();
    let ready = pods::condition(pod, "Ready").filter(|ready| ready.status == "True");
    let ready_since = ready.and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0);
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let restarts = statuses.map(|status| status.restart_count).max().unwrap_or_default();
    let created = pod.creation_timestamp().map(|time| time.0);
    (
        assigned,
        phase,
        ready.is_some(),
        cost,
        Reverse(ready_since),
        Reverse(restarts),
        Reverse(created),
        pod.name_any(),
    )
}

fn new_pod(set: &ReplicaSet) -> Pod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let from = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.name_any())),
            namespace: set.namespace(),
            labels: from.labels,
            annotations: from.annotations,
            finalizers: from.finalizers,
            owner_references: Some(vec![owner_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// The reference by which a managed object names its controller.
pub(crate) fn owner_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The conditions with ReplicaFailure set or taken away.
fn conditions(
    set: &ReplicaSet,
    failure: Option<&kube::Error>,
    active: i32,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let old = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let (failures, mut others): (Vec<_>, Vec<_>) =
        old.into_iter().partition(|old| old.type_ == "ReplicaFailure");
    if let Some(error) = failure {
        let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let reason = if active < wanted { "FailedCreate" } else { "FailedDelete" };
        let new = ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message(error)),
            last_transition_time: Some(Time(now)),
        };
        // As Kubernetes does, the first failure stands until it is over.
        others.push(failures.into_iter().next().unwrap_or(new));
    }
    Some(others).filter(|conditions| !conditions.is_empty())
}

fn count(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

/// A number of seconds from a manifest; negative ones count as none.
pub(crate) fn seconds(value: Option<i32>) -> Duration {
    Duration::from_secs(u64::try_from(value.unwrap_or_default()).unwrap_or_default())
}
