//! The gate behind a rollout: the newest pods are alone. Until the last old pod has ended, it may still answer a
//! request or take the memory that a load test measures.

use std::time::Duration;

use anyhow::Result;
use futures::Stream;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;

use super::clock::Clock;
use super::rollout::judge::{others, resume};
use super::rollout::view::View;
use super::rollout::{self, RolledOut, Rollout, Snapshot};
use super::{Gate, Standing, Verdict, pod};
use crate::pipeline::{Branch, Done};

/// The gate.
pub const GATE: Gate = Gate {
    name: "settled",
    opens_when: "no old pod is left, terminating ones included",
    // The old pods' grace period (45 s in `kubernetes/`), one after another where they are many.
    deadline: Duration::from_secs(300),
    standing: Some(Standing {
        look: |site| {
            Box::pin(async { Ok(look(&site.cluster.client, &site.rollout()).await?.without_value()) })
        },
        wait: |branch, site| {
            Box::pin(async move { wait(branch, &site.cluster.client, &site.rollout()).await.map(drop) })
        },
    }),
};
/// A pod that is still there so long after the end of its grace period is held by something.
const OVERDUE: Duration = Duration::from_secs(15);

/// Waits until the pods of `target` are rolled out and alone.
///
/// # Errors
/// As [`super::wait`].
pub async fn wait(branch: &mut Branch<'_>, client: &Client, target: &Rollout) -> Result<Done<RolledOut>> {
    rollout::wait_at(branch, &GATE, client, target, verdicts(client, target)).await
}

/// One look.
///
/// # Errors
/// When the API server does not answer.
pub async fn look(client: &Client, target: &Rollout) -> Result<Verdict<RolledOut>> {
    rollout::look_with(client, target, judge).await
}

/// Verdicts on `target` as it changes.
pub(super) fn verdicts(
    client: &Client,
    target: &Rollout,
) -> impl Stream<Item = Result<Verdict<RolledOut>>> + use<> {
    rollout::verdicts_with(client, target, judge)
}

/// Judges what was seen.
pub fn judge(s: &Snapshot, clock: &Clock) -> Verdict<RolledOut> {
    let (rolled_out, deployment) = match (rollout::judge(s, clock), s.deployments.get(&s.target.deployment)) {
        (Verdict::Open(rolled_out, _), Some(deployment)) => (rolled_out, deployment),
        (other, _) => return other,
    };
    let view = View::of(s, deployment);
    let wanted = view.wanted();
    let mut left = others(&view);
    let surplus = view.newest_pods.len().saturating_sub(usize::try_from(wanted).unwrap_or(0));
    if surplus > 0 {
        left.push(format!("{surplus} more than the {wanted} that are asked for"));
    }
    if !left.is_empty() {
        let left = left.join("; ");
        if view.is_held() {
            let why = format!("{left}: deployment/{} is paused", s.target.deployment);
            return Verdict::Doomed(why, resume(&s.target));
        }
        return match view.terminating.iter().find(|pod| is_overdue(pod, clock)) {
            Some(pod) => Verdict::Suspect(format!(
                "{left}: the grace period of {} has expired; its node, or a finalizer, holds it",
                pod::short(pod)
            )),
            None => Verdict::Closed(left),
        };
    }
    let status = deployment.status.clone().unwrap_or_default();
    let counts = [status.replicas, status.updated_replicas, status.available_replicas];
    if counts != [Some(wanted); 3] {
        let [all, updated, available] = counts.map(Option::unwrap_or_default);
        return Verdict::Closed(format!(
            "no old pod is left; the Deployment counts {all} in all, {updated} updated, {available} available"
        ));
    }
    let how = format!("{wanted} of {wanted} pods are of revision {}, no other is left", rolled_out.revision);
    Verdict::Open(rolled_out, how)
}

/// The API's deletion timestamp is when the grace period ends.
fn is_overdue(pod: &Pod, clock: &Clock) -> bool {
    pod.metadata.deletion_timestamp.as_ref().is_some_and(|until| clock.passed(until.0, OVERDUE))
}
