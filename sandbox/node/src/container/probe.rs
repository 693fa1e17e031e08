//! Probes: asked at their period, counted against their thresholds.

use std::ops::ControlFlow;
use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use tokio::time::{Instant, MissedTickBehavior};

use super::action::{Action, Target};

/// Which probe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    /// The kubelet's word for it at the start of a sentence.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Startup => "startup",
            Kind::Readiness => "readiness",
            Kind::Liveness => "liveness",
        }
    }
}

/// What a probe found.
pub(crate) enum Finding<'a> {
    /// One attempt failed; the message says how.
    Failed(&'a str),
    /// Enough attempts in a row agree.
    Verdict(bool),
}

/// When a probe is first asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// As soon as it may be, and once a period from then on: the container has started.
    AtOnce,
    /// In its first period, over and over. The kubelet's periods begin before the container does, so that its first
    /// attempt comes at any moment of one; here it comes when the container has just become healthy, where that does
    /// not take long. What fails on the way counts once a period, as an attempt of the kubelet's would.
    InPeriod,
}

/// A container that is healthy by then is found to be so at once; from then on a probe is asked once a period.
const EAGER_FOR: Duration = Duration::from_secs(3);
const EAGER_PAUSE: Duration = Duration::from_millis(100);

/// Probes until `report` breaks, each attempt on a connection of its own.
pub(crate) async fn run(
    probe: &Probe,
    first: First,
    target: &Target<'_>,
    mut report: impl FnMut(Finding<'_>) -> ControlFlow<()>,
) {
    let Some(action) = Action::of_probe(probe) else {
        let _ = report(Finding::Failed("this kind of probe is not supported by this node"));
        return std::future::pending().await;
    };
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
    };
    let at_least_one = |value: Option<i32>, default: i32| value.unwrap_or(default).max(1);
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let success_threshold = at_least_one(probe.success_threshold, 1);
    let failure_threshold = at_least_one(probe.failure_threshold, 3);
    let every = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let attempt = async || match target.faults.of_probe(target.namespace) {
        Some(failure) => Err(failure),
        None => action.run(target, timeout).await,
    };
    let eager_until = Instant::now() + if first == First::InPeriod { EAGER_FOR } else { Duration::ZERO };
    let mut period = tokio::time::interval(every);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut in_a_row, mut was_healthy) = (None, 0, false);
    loop {
        let last_try = period.tick().await + every - EAGER_PAUSE;
        let mut result = attempt().await;
        while result.is_err() && !was_healthy && Instant::now() < last_try.min(eager_until) {
            tokio::time::sleep(EAGER_PAUSE).await;
            result = attempt().await;
        }
        was_healthy |= result.is_ok();
        if let Err(message) = &result
            && report(Finding::Failed(message)).is_break()
        {
            return;
        }
        let success = result.is_ok();
        in_a_row = if last == Some(success) { in_a_row + 1 } else { 1 };
        last = Some(success);
        let threshold = if success { success_threshold } else { failure_threshold };
        if in_a_row >= threshold && report(Finding::Verdict(success)).is_break() {
            return;
        }
    }
}
