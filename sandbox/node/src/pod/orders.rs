//! When a pod's containers are to end: its object is being deleted, is gone, or the agent shuts down.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::PodHandle;
use crate::agent::Context;

/// The containers are to end by `deadline`; then they are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopOrder {
    pub(crate) deadline: Instant,
    /// Run the preStop hooks.
    pub(crate) hooks: bool,
    /// At least so long between SIGTERM and SIGKILL, whatever the hooks have used up.
    pub(crate) floor: Duration,
}

/// The kubelet gives a container at least this long after SIGTERM.
pub(crate) const FLOOR: Duration = Duration::from_secs(2);
/// For pods whose object is gone.
const GONE_GRACE: Duration = Duration::from_secs(1);
/// For every pod when the agent shuts down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Turns what happens into orders, each stricter than the one before.
pub(super) async fn issue(cx: Arc<Context>, pod: Arc<PodHandle>) {
    let mut object = pod.object.subscribe();
    let mut given = None;
    let end = |grace: Duration| {
        let order = StopOrder { deadline: after(grace), hooks: false, floor: Duration::ZERO };
        pod.stop.send_replace(Some(order));
    };
    loop {
        let current = object.borrow_and_update().clone();
        if current.metadata.deletion_timestamp.is_some() {
            let grace = deletion_grace(&current);
            if given.is_none_or(|given| grace < given) {
                given = Some(grace);
                let order = StopOrder { deadline: after(grace), hooks: true, floor: FLOOR };
                pod.stop.send_replace(Some(order));
            }
        }
        tokio::select! {
            biased;
            () = cx.shutdown.cancelled() => return end(SHUTDOWN_GRACE),
            () = pod.gone.cancelled() => {
                end(GONE_GRACE);
                // A shutdown meanwhile does not lengthen it.
                return;
            }
            changed = object.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// The moment in so long; a pod may ask for more time than the clock has.
pub(crate) fn after(time: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    Instant::now() + time.min(NEVER)
}

/// How long the pod's spec gives its containers to end.
pub(crate) fn grace(pod: &Pod) -> Duration {
    let seconds = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    whole(seconds).unwrap_or(Duration::from_secs(30))
}

fn deletion_grace(pod: &Pod) -> Duration {
    whole(pod.metadata.deletion_grace_period_seconds).unwrap_or_else(|| grace(pod))
}

fn whole(seconds: Option<i64>) -> Option<Duration> {
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}
