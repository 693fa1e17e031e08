//! A change of `spec.replicas`, spread over the ReplicaSets that have pods.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::ResourceExt as _;

use super::{COMPONENT, DESIRED, MAXIMUM, Rollout, available, set_replicas, sum_replicas};

impl Rollout<'_> {
    /// Whether `spec.replicas` differs from what the sets were last scaled for.
    pub(super) fn is_scaling_event(&self) -> bool {
        self.sets().iter().filter(|set| set_replicas(set) > 0).any(|set| {
            let noted = set.annotations().get(DESIRED).and_then(|desired| desired.parse::<i32>().ok());
            noted.is_some_and(|noted| noted != self.replicas)
        })
    }

    /// One set takes the whole change; several, in the middle of a rolling update, share it in proportion.
    pub(super) async fn scale(&mut self) -> kube::Result<()> {
        let new = self.new_set();
        let sets = self.sets();
        let active: Vec<Arc<ReplicaSet>> = sets.iter().filter(|set| set_replicas(set) > 0).cloned().collect();
        let only = match active.as_slice() {
            [] => new.clone().or_else(|| sets.last().cloned()),
            [one] => Some(Arc::clone(one)),
            _ => None,
        };
        if let Some(only) = only {
            self.scale_set(&only, self.replicas).await?;
            return Ok(());
        }
        if new.as_ref().is_some_and(|new| self.is_saturated(new)) {
            for set in self.old_sets().iter().filter(|set| set_replicas(set) > 0) {
                self.scale_set(set, 0).await?;
            }
            return Ok(());
        }
        if self.is_recreate() {
            return Ok(());
        }
        let allowed = if self.replicas > 0 { self.replicas + self.max_surge() } else { 0 };
        let to_add = allowed - sum_replicas(&active);
        let mut order = active;
        // The largest takes the rest; among equals the newest when there is more, the oldest when there is less.
        order.sort_by_key(|set| (-set_replicas(set), set.creation_timestamp().map(|time| time.0)));
        if to_add > 0 {
            order.sort_by_key(|set| {
                (-set_replicas(set), std::cmp::Reverse(set.creation_timestamp().map(|time| time.0)))
            });
        }
        let mut added = 0;
        let mut sizes = Vec::new();
        for set in &order {
            let share = self.share(set, to_add, added);
            added += share;
            sizes.push(set_replicas(set) + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (set, size) in order.iter().zip(sizes) {
            self.scale_set(set, size).await?;
        }
        Ok(())
    }

    fn share(&self, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
        let current = set_replicas(set);
        let left = to_add - added;
        if current == 0 || left == 0 {
            return 0;
        }
        let fraction = if self.replicas == 0 {
            -current
        } else {
            let noted = set.annotations().get(MAXIMUM).and_then(|maximum| maximum.parse::<i32>().ok());
            let before = noted.filter(|noted| *noted > 0).unwrap_or_else(|| {
                self.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(current)
            });
            let scaled =
                f64::from(current) * f64::from(self.replicas + self.max_surge()) / f64::from(before.max(1));
            // Between 0 and a few thousand.
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounded, and no larger than a number of pods"
            )]
            let scaled = scaled.round() as i32;
            scaled - current
        };
        if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    fn is_saturated(&self, set: &ReplicaSet) -> bool {
        let noted = set.annotations().get(DESIRED).and_then(|desired| desired.parse::<i32>().ok());
        set_replicas(set) == self.replicas && noted == Some(self.replicas) && available(set) == self.replicas
    }

    /// Gives a set its size and notes what it was scaled for; true when the size changed.
    pub(super) async fn scale_set(&self, set: &ReplicaSet, replicas: i32) -> kube::Result<bool> {
        let current = set_replicas(set);
        let mut updated = set.clone();
        let annotations = updated.annotations_mut();
        annotations.insert(DESIRED.to_owned(), self.replicas.to_string());
        annotations.insert(MAXIMUM.to_owned(), (self.replicas + self.max_surge()).to_string());
        // Where nothing runs, and nothing shall, the notes don't matter.
        let noted = updated.annotations() == set.annotations() || (current == 0 && replicas == 0);
        if current == replicas && noted {
            return Ok(false);
        }
        if let Some(spec) = &mut updated.spec {
            spec.replicas = Some(replicas);
        }
        self.cluster.replace(&self.cluster.replica_sets, &updated).await?;
        if current == replicas {
            return Ok(false);
        }
        let direction = if replicas > current { "up" } else { "down" };
        let message =
            format!("Scaled {direction} replica set {} from {current} to {replicas}", set.name_any());
        self.cluster.events.normal(COMPONENT, &*self.deployment, "ScalingReplicaSet", message);
        Ok(true)
    }
}
