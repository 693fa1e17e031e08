//! One container of a pod: created, run, probed, restarted, stopped.

mod action;
mod env;
mod life;
mod prepare;
mod probe;
pub(crate) mod process;
mod run;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStateWaiting, ContainerStatus};
use sandbox_events::Severity;

use crate::context::{Context, KUBELET, Tuning};
use crate::pod::handle::{PodHandle, Slot, is_sidecar};

/// A container and where it belongs: what every step of its life needs.
pub(crate) struct ContainerContext {
    pub(crate) cx: Arc<Context>,
    pub(crate) pod: Arc<PodHandle>,
    pub(crate) slot: Slot,
    pub(crate) spec: Container,
}

impl ContainerContext {
    fn event(&self, severity: Severity, reason: &'static str, message: String) {
        self.cx.events.record(
            KUBELET,
            self.pod.reference(Some((self.slot, &self.spec.name))),
            severity,
            reason,
            message,
        );
    }

    fn update(&self, change: impl FnOnce(&mut ContainerStatus)) {
        self.pod.update(self.slot, change);
    }

    fn set_waiting(&self, reason: &str, message: String) {
        let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message: Some(message) };
        let state = ContainerState { waiting: Some(waiting), ..ContainerState::default() };
        self.update(|status| {
            remember_last(status);
            status.state = Some(state);
        });
    }
}

/// A state that says how the container ended becomes the last state.
fn remember_last(status: &mut ContainerStatus) {
    if status.state.as_ref().is_some_and(|state| state.terminated.is_some()) {
        status.last_state = status.state.take();
    }
}

/// Runs a container until it is to run no more: by the restart policy, or because the pod is told to stop. The exit
/// code of its last run; `None`: it never ran.
pub(crate) async fn supervise(
    cx: Arc<Context>,
    pod: Arc<PodHandle>,
    slot: Slot,
    spec: Container,
) -> Option<i32> {
    let policy = pod.pod().spec.as_ref().and_then(|spec| spec.restart_policy.clone());
    let sidecar = slot.init && is_sidecar(&spec);
    let policy = match policy.as_deref() {
        _ if sidecar => "Always",
        // An init container has done its work when it has succeeded.
        None | Some("Always") if slot.init => "OnFailure",
        None => "Always",
        Some(policy) => policy,
    }
    .to_owned();
    let container = ContainerContext { cx, pod, slot, spec };
    let pod = &container.pod;
    let mut backoff = Backoff::new(&container.cx.tuning);
    let mut last_exit = None;
    for attempt in 0.. {
        let created = tokio::select! {
            biased;
            () = pod.ordered() => break,
            created = prepare::until_created(&container) => created,
        };
        let ended = run::once(&container, &created, attempt).await;
        last_exit = Some(ended.exit_code);
        let restart = policy == "Always" || (policy == "OnFailure" && ended.exit_code != 0);
        if pod.stop.borrow().is_some() || !restart {
            break;
        }
        if let Some(pause) = backoff.next(ended.ran_for) {
            let who = format!("{}_{}({})", pod.name, pod.namespace, pod.uid);
            let name = &container.spec.name;
            let message =
                format!("back-off {} restarting failed container={name} pod={who}", go_duration(pause));
            container.set_waiting("CrashLoopBackOff", message);
            let message = format!("Back-off restarting failed container {name} in pod {who}");
            container.event(Severity::Warning, "BackOff", message);
            tokio::select! {
                biased;
                () = pod.ordered() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
    // A container that is told to stop while it waits for its restart ended when it last ended.
    container.update(|status| {
        let waiting = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
        if waiting && status.last_state.as_ref().is_some_and(|last| last.terminated.is_some()) {
            status.state = status.last_state.take();
        }
    });
    last_exit
}

/// Pauses before restarts, as the kubelet makes them: none before the first, then ever longer ones.
struct Backoff {
    first: Duration,
    max: Duration,
    next: Option<Duration>,
}

impl Backoff {
    fn new(tuning: &Tuning) -> Backoff {
        Backoff { first: tuning.crash_backoff, max: tuning.crash_backoff_max, next: None }
    }

    /// The pause after a run of `ran_for`; a run of twice the longest pause wipes the slate.
    fn next(&mut self, ran_for: Duration) -> Option<Duration> {
        if ran_for > self.max * 2 {
            self.next = None;
        }
        let pause = self.next;
        self.next = Some(pause.map_or(self.first, |pause| pause * 2).min(self.max));
        pause
    }
}

/// As Go prints durations: `10s`, `2m40s`, `200ms`.
fn go_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    match (seconds / 60, seconds % 60) {
        (0, 0) => format!("{millis}ms"),
        (0, seconds) if millis > 0 => format!("{seconds}.{}s", format!("{millis:03}").trim_end_matches('0')),
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_and_health_resets_it() {
        let mut backoff = Backoff::new(&Tuning::default());
        let mut next = |seconds| backoff.next(Duration::from_secs(seconds)).map(|pause| pause.as_secs());
        let pauses: Vec<_> = (0..8).map(|_| next(1)).collect();
        let expected = [None, Some(10), Some(20), Some(40), Some(80), Some(160), Some(300), Some(300)];
        assert_eq!(pauses, expected);
        assert_eq!(next(599), Some(300));
        assert_eq!(next(601), None);
        assert_eq!(next(1), Some(10));
    }

    #[test]
    fn durations_as_go_prints_them() {
        for (millis, text) in
            [(10_000, "10s"), (160_000, "2m40s"), (300_000, "5m0s"), (200, "200ms"), (1500, "1.5s")]
        {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}
