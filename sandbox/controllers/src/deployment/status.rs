//! The Deployment's status: counts, and the conditions Available, Progressing and ReplicaFailure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSetCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::{Rollout, available, sum_replicas};
use crate::control::Pass;

impl Rollout<'_> {
    pub(super) fn has_deadline(&self) -> bool {
        self.spec.progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX)
    }

    pub(super) fn condition(&self, type_: &str) -> Option<&DeploymentCondition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// Sets a condition, unless it has this status for this reason already.
    pub(super) fn set_condition(
        &mut self,
        type_: &str,
        status: &str,
        reason: &str,
        message: impl Into<String>,
    ) {
        let old = self.condition(type_);
        if old.is_some_and(|old| old.status == status && old.reason.as_deref() == Some(reason)) {
            return;
        }
        let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
        let condition = DeploymentCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.into()),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(since.unwrap_or(Time(self.now))),
        };
        self.remove_condition(type_);
        self.conditions.push(condition);
    }

    fn remove_condition(&mut self, type_: &str) {
        self.conditions.retain(|condition| condition.type_ != type_);
    }

    /// A pause stops the clock of the progress deadline, a resumption starts it anew.
    pub(super) fn note_paused(&mut self) {
        if !self.has_deadline() {
            return;
        }
        let reason = self.condition("Progressing").and_then(|condition| condition.reason.clone());
        if reason.as_deref() == Some("ProgressDeadlineExceeded") {
            return;
        }
        let was_paused = reason.as_deref() == Some("DeploymentPaused");
        if self.paused() && !was_paused {
            self.set_condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused");
        } else if !self.paused() && was_paused {
            self.set_condition("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed");
        }
    }

    /// Counts and the condition Available.
    pub(super) fn calculate_status(&mut self) -> DeploymentStatus {
        let sets = self.sets();
        let new = self.new_set();
        let statuses: Vec<_> = sets.iter().filter_map(|set| set.status.clone()).collect();
        let replicas: i32 = statuses.iter().map(|status| status.replicas).sum();
        let available: i32 = sets.iter().map(|set| available(set)).sum();
        if available >= self.replicas - self.max_unavailable() {
            let message = "Deployment has minimum availability.";
            self.set_condition("Available", "True", "MinimumReplicasAvailable", message);
        } else {
            let message = "Deployment does not have minimum availability.";
            self.set_condition("Available", "False", "MinimumReplicasUnavailable", message);
        }
        DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: Some(replicas),
            updated_replicas: new.and_then(|set| Some(set.status.as_ref()?.replicas)),
            ready_replicas: Some(statuses.iter().filter_map(|status| status.ready_replicas).sum()),
            available_replicas: Some(available),
            unavailable_replicas: Some((sum_replicas(&sets) - available).max(0)),
            terminating_replicas: Some(
                statuses.iter().filter_map(|status| status.terminating_replicas).sum(),
            ),
            collision_count: self.collisions,
            conditions: None,
        }
    }

    /// The same, with Progressing and ReplicaFailure judged.
    pub(super) fn rollout_status(&mut self, pass: &mut Pass) -> DeploymentStatus {
        let status = self.calculate_status();
        let old = self.deployment.status.clone().unwrap_or_default();
        let reason = self.condition("Progressing").and_then(|condition| condition.reason.clone());
        let settled =
            reason.as_deref() == Some("NewReplicaSetAvailable") && status.replicas == status.updated_replicas;
        if !self.has_deadline() {
            self.remove_condition("Progressing");
        } else if !settled {
            let name = match self.new_set() {
                Some(set) => format!("ReplicaSet \"{}\"", set.name_any()),
                None => format!("Deployment \"{}\"", self.deployment.name_any()),
            };
            if self.complete(&status) {
                let message = format!("{name} has successfully progressed.");
                self.set_condition("Progressing", "True", "NewReplicaSetAvailable", message);
            } else if progressed(&old, &status) {
                // Anew each time: the deadline counts from the last progress.
                self.refresh_progressing(format!("{name} is progressing."));
            } else if self.timed_out() {
                let message = format!("{name} has timed out progressing.");
                self.set_condition("Progressing", "False", "ProgressDeadlineExceeded", message);
            }
            pass.after_some(self.until_deadline());
        }
        match self.replica_failure() {
            Some(failure) => {
                let (reason, message) =
                    (failure.reason.unwrap_or_default(), failure.message.unwrap_or_default());
                self.set_condition("ReplicaFailure", &failure.status, &reason, message);
            }
            None => self.remove_condition("ReplicaFailure"),
        }
        status
    }

    fn refresh_progressing(&mut self, message: String) {
        let since = self.condition("Progressing").filter(|old| old.status == "True");
        let since = since.and_then(|old| old.last_transition_time.clone());
        self.remove_condition("Progressing");
        self.set_condition("Progressing", "True", "ReplicaSetUpdated", message);
        if let (Some(since), Some(condition)) = (since, self.conditions.last_mut()) {
            condition.last_transition_time = Some(since);
        }
    }

    /// Whether the status last written says that the rollout is over.
    pub(super) fn is_complete(&self) -> bool {
        self.deployment.status.as_ref().is_some_and(|status| self.complete(status))
    }

    fn complete(&self, status: &DeploymentStatus) -> bool {
        let all = |count: Option<i32>| count.unwrap_or_default() == self.replicas;
        all(status.updated_replicas)
            && all(status.replicas)
            && all(status.available_replicas)
            && status.observed_generation >= self.deployment.metadata.generation
    }

    /// How long until the deadline passes, where it is running.
    fn until_deadline(&self) -> Option<Duration> {
        let condition = self.condition("Progressing")?;
        if matches!(
            condition.reason.as_deref(),
            Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded" | "DeploymentPaused")
        ) {
            return None;
        }
        let seconds = i64::from(self.spec.progress_deadline_seconds?);
        let deadline = condition
            .last_update_time
            .as_ref()?
            .0
            .checked_add(jiff::SignedDuration::from_secs(seconds))
            .ok()?;
        Some(
            Duration::try_from(deadline.duration_since(Timestamp::now())).unwrap_or_default()
                + Duration::from_millis(1),
        )
    }

    fn timed_out(&self) -> bool {
        let Some(condition) = self.condition("Progressing") else { return false };
        if condition.reason.as_deref() == Some("ProgressDeadlineExceeded") {
            return true;
        }
        let (Some(seconds), Some(last)) = (self.spec.progress_deadline_seconds, &condition.last_update_time)
        else {
            return false;
        };
        condition.reason.as_deref() != Some("NewReplicaSetAvailable")
            && self.now.duration_since(last.0) > jiff::SignedDuration::from_secs(i64::from(seconds))
    }

    /// The new set's failure to create pods, else an old one's.
    fn replica_failure(&self) -> Option<ReplicaSetCondition> {
        let sets = self.new_set().into_iter().chain(self.old_sets());
        let mut conditions = sets.filter_map(|set| set.status.as_ref()?.conditions.clone()).flatten();
        conditions.find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
    }

    pub(super) async fn write_status(&mut self, mut status: DeploymentStatus) -> kube::Result<()> {
        status.conditions = Some(self.conditions.clone()).filter(|conditions| !conditions.is_empty());
        // Kubernetes leaves zero counts out.
        for field in [
            &mut status.replicas,
            &mut status.updated_replicas,
            &mut status.ready_replicas,
            &mut status.available_replicas,
            &mut status.unavailable_replicas,
            &mut status.terminating_replicas,
        ] {
            *field = field.filter(|count| *count != 0);
        }
        if self.deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut updated = Deployment { status: Some(status), ..(*self.deployment).clone() };
        // The revision may have been written in this very pass.
        if let Some(newest) = self.cluster.deployments.get(&self.namespace(), &self.deployment.name_any())
            && newest.metadata.uid == self.deployment.metadata.uid
            && newest.metadata.generation == self.deployment.metadata.generation
        {
            updated.metadata = newest.metadata.clone();
        }
        self.cluster.replace_status(&self.cluster.deployments, &updated).await
    }
}

fn progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let of = |count: Option<i32>| count.unwrap_or_default();
    let old_pods = |status: &DeploymentStatus| of(status.replicas) - of(status.updated_replicas);
    of(new.updated_replicas) > of(old.updated_replicas)
        || old_pods(new) < old_pods(old)
        || of(new.ready_replicas) > of(old.ready_replicas)
        || of(new.available_replicas) > of(old.available_replicas)
}
