//! How long a pod's containers may take to end.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

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

pub(super) fn deletion_grace(pod: &Pod) -> Duration {
    whole(pod.metadata.deletion_grace_period_seconds).unwrap_or_else(|| grace(pod))
}

fn whole(seconds: Option<i64>) -> Option<Duration> {
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}
