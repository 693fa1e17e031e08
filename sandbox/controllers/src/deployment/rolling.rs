//! The two ways from the old pods to the new ones.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{Rollout, available, set_replicas, sum_replicas};

impl Rollout<'_> {
    /// RollingUpdate: one step up or one step down.
    pub(super) async fn roll(&mut self) -> kube::Result<()> {
        let new = self.ensure_new_set().await?;
        if self.scale_up_new(&new).await? || self.scale_down_old(&new).await? {
            return Ok(());
        }
        if self.is_complete() {
            self.remove_old_sets().await?;
        }
        Ok(())
    }

    /// Recreate: all old pods gone, then all new ones.
    pub(super) async fn recreate(&mut self) -> kube::Result<()> {
        self.find_new_set().await?;
        let mut scaled = false;
        for set in self.old_sets() {
            scaled |= self.scale_set(&set, 0).await?;
        }
        if scaled || self.old_pods_run() {
            return Ok(());
        }
        let new = self.ensure_new_set().await?;
        self.scale_set(&new, self.replicas).await?;
        if self.is_complete() {
            self.remove_old_sets().await?;
        }
        Ok(())
    }

    /// How many pods the new set, which has `current`, may have now.
    pub(super) fn new_set_replicas(&self, current: i32) -> i32 {
        if self.is_recreate() {
            return self.replicas;
        }
        let room = self.replicas + self.max_surge() - sum_replicas(&self.sets());
        current + room.min(self.replicas - current).max(0)
    }

    async fn scale_up_new(&mut self, new: &ReplicaSet) -> kube::Result<bool> {
        let current = set_replicas(new);
        let wanted = if current > self.replicas { self.replicas } else { self.new_set_replicas(current) };
        self.scale_set(new, wanted).await
    }

    async fn scale_down_old(&mut self, new: &ReplicaSet) -> kube::Result<bool> {
        let old = self.old_sets();
        if sum_replicas(&old) == 0 {
            return Ok(false);
        }
        let least = self.replicas - self.max_unavailable();
        let new_unavailable = set_replicas(new) - available(new);
        let may_go = sum_replicas(&self.sets()) - least - new_unavailable;
        if may_go <= 0 {
            return Ok(false);
        }
        let unhealthy = self.remove_unhealthy(&old, may_go).await?;
        let healthy = self.remove_available(least).await?;
        Ok(unhealthy + healthy > 0)
    }

    /// Old pods that serve nobody go first, so that a broken rollout doesn't stand in the way of the next.
    async fn remove_unhealthy(&mut self, old: &[Arc<ReplicaSet>], may_go: i32) -> kube::Result<i32> {
        let mut gone = 0;
        for set in old {
            let current = set_replicas(set);
            let step = (may_go - gone).min(current - available(set));
            if step > 0 {
                self.scale_set(set, current - step).await?;
                gone += step;
            }
        }
        Ok(gone)
    }

    async fn remove_available(&mut self, least: i32) -> kube::Result<i32> {
        let all: i32 = self.sets().iter().map(|set| available(set)).sum();
        let mut gone = 0;
        for set in self.old_sets() {
            let current = set_replicas(&set);
            let step = (all - least - gone).min(current);
            if step > 0 {
                self.scale_set(&set, current - step).await?;
                gone += step;
            }
        }
        Ok(gone)
    }
}
