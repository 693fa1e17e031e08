//! A running container: probed, and ended by itself, by a probe's verdict, or because the pod is told to stop.

use std::ops::ControlFlow;
use std::time::Duration;

use rustix::process::Signal;
use sandbox_events::Severity;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::ContainerContext;
use super::action::{Action, Target};
use super::probe::{self, Finding, First, Kind};
use super::process::{Launch, Process};
use crate::pod::stop::{FLOOR, StopOrder, after, grace};

/// The kubelet sets no limit to a postStart hook; a day stands for none.
const NO_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Waits for the process to end, and sees to it where it must. The exit code.
pub(super) async fn until_end(container: &ContainerContext, process: &mut Process, launch: &Launch) -> i32 {
    let ContainerContext { cx, pod, spec, .. } = container;
    let Some(address) = pod.address() else { return process.wait().await };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (leash, faults) = (&cx.config.leash, &cx.faults);
    let target = Target { address, ports, launch, leash, faults, namespace: &pod.namespace };
    let started = Notify::new();
    let sick = until_sick(container, &target, &started);
    let readiness = keep_ready(container, &target, &started);
    let post_start = post_start(container, &target);
    tokio::pin!(sick, readiness, post_start);
    let mut hook_runs = true;
    // How long the container gets, unless the pod's own end says otherwise.
    let (own_grace, message) = loop {
        tokio::select! {
            biased;
            exit_code = process.wait() => return exit_code,
            () = pod.ordered() => break (None, format!("Stopping container {}", spec.name)),
            sick = &mut sick => {
                let (name, probe) = (&spec.name, sick.kind.word());
                let message = format!("Container {name} failed {probe} probe, will be restarted");
                break (Some(sick.grace), message);
            }
            done = &mut post_start, if hook_runs => {
                hook_runs = false;
                if done.is_err() {
                    break (Some(grace(&pod.pod())), "FailedPostStartHook".to_owned());
                }
            }
            () = &mut readiness => {}
        }
    };
    container.event(Severity::Normal, "Killing", message);
    let own = own_grace.map(|grace| StopOrder { deadline: after(grace), hooks: true, floor: FLOOR });
    // Readiness is still asked, so that a container that drains shows it.
    tokio::select! {
        biased;
        exit_code = stop(container, process, &target, own) => exit_code,
        () = &mut readiness => std::future::pending().await,
    }
}

/// What a failed startup or liveness probe leads to.
struct Sick {
    kind: Kind,
    grace: Duration,
}

fn unhealthy(container: &ContainerContext, kind: Kind, message: &str) {
    container.event(Severity::Warning, "Unhealthy", format!("{} probe failed: {message}", kind.title()));
}

/// The startup probe, then the liveness probe, until one has failed for good.
async fn until_sick(container: &ContainerContext, target: &Target<'_>, started: &Notify) -> Sick {
    let spec = &container.spec;
    if let Some(startup) = &spec.startup_probe {
        let mut healthy = false;
        let probe = probe::run(startup, First::InPeriod, target, |finding| match finding {
            Finding::Failed(message) => {
                unhealthy(container, Kind::Startup, message);
                ControlFlow::Continue(())
            }
            Finding::Verdict(verdict) => {
                healthy = verdict;
                ControlFlow::Break(())
            }
        });
        probe.await;
        if !healthy {
            return Sick { kind: Kind::Startup, grace: probe_grace(container, startup) };
        }
        container.update(|status| {
            status.started = Some(true);
            status.ready = spec.readiness_probe.is_none();
        });
    }
    started.notify_one();
    let Some(liveness) = &spec.liveness_probe else { return std::future::pending().await };
    let probe = probe::run(liveness, first_after_start(container), target, |finding| match finding {
        Finding::Failed(message) => {
            unhealthy(container, Kind::Liveness, message);
            ControlFlow::Continue(())
        }
        Finding::Verdict(true) => ControlFlow::Continue(()),
        Finding::Verdict(false) => ControlFlow::Break(()),
    });
    probe.await;
    Sick { kind: Kind::Liveness, grace: probe_grace(container, liveness) }
}

fn probe_grace(container: &ContainerContext, probe: &k8s_openapi::api::core::v1::Probe) -> Duration {
    let own = probe.termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    own.map_or_else(|| grace(&container.pod.pod()), Duration::from_secs)
}

/// A startup probe has said that the container may be asked.
fn first_after_start(container: &ContainerContext) -> First {
    if container.spec.startup_probe.is_some() { First::AtOnce } else { First::InPeriod }
}

/// The readiness probe, once the container has started. Never ends.
async fn keep_ready(container: &ContainerContext, target: &Target<'_>, started: &Notify) {
    started.notified().await;
    if let Some(readiness) = &container.spec.readiness_probe {
        let probe = probe::run(readiness, first_after_start(container), target, |finding| {
            match finding {
                Finding::Failed(message) => unhealthy(container, Kind::Readiness, message),
                Finding::Verdict(ready) => container.update(|status| status.ready = ready),
            }
            ControlFlow::Continue(())
        });
        probe.await;
    }
    std::future::pending::<()>().await;
}

async fn post_start(container: &ContainerContext, target: &Target<'_>) -> Result<(), ()> {
    let hook = container.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    let Some(action) = hook.and_then(Action::of_hook) else { return Ok(()) };
    action.run(target, NO_LIMIT).await.map_err(|message| {
        container.event(Severity::Warning, "FailedPostStartHook", format!("PostStartHook failed: {message}"));
    })
}

/// Ends the process: preStop hook, SIGTERM, the grace period, SIGKILL. By its `own` order or the pod's, whichever is
/// stricter.
async fn stop(
    container: &ContainerContext,
    process: &mut Process,
    target: &Target<'_>,
    own: Option<StopOrder>,
) -> i32 {
    let mut orders = container.pod.stop.subscribe();
    let first = *orders.borrow_and_update();
    let Some(mut order) = stricter(own, first) else { return process.wait().await };

    let hook = container.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(action) = hook.and_then(Action::of_hook).filter(|_| order.hooks) {
        let left = order.deadline.saturating_duration_since(Instant::now());
        let hook = action.run(target, left);
        tokio::pin!(hook);
        let result = loop {
            tokio::select! {
                biased;
                exit_code = process.wait() => return exit_code,
                result = &mut hook => break result,
                new = next(&mut orders) => {
                    order = stricter(Some(order), Some(new)).unwrap_or(order);
                    if !order.hooks {
                        break Ok(());
                    }
                }
                () = tokio::time::sleep_until(order.deadline) => {
                    break Err("not completed in grace period".to_owned());
                }
            }
        };
        if let Err(message) = result {
            container.event(Severity::Warning, "FailedPreStopHook", format!("PreStopHook failed: {message}"));
        }
    }
    let signalled = Instant::now();
    process.signal(Signal::TERM);
    let mut killed = false;
    loop {
        let deadline = order.deadline.max(signalled + order.floor);
        tokio::select! {
            biased;
            exit_code = process.wait() => return exit_code,
            new = next(&mut orders) => order = stricter(Some(order), Some(new)).unwrap_or(order),
            () = tokio::time::sleep_until(deadline), if !killed => {
                process.kill();
                killed = true;
            }
        }
    }
}

fn stricter(one: Option<StopOrder>, other: Option<StopOrder>) -> Option<StopOrder> {
    one.into_iter().chain(other).min_by_key(|order| order.deadline + order.floor)
}

async fn next(orders: &mut watch::Receiver<Option<StopOrder>>) -> StopOrder {
    loop {
        if orders.changed().await.is_err() {
            return std::future::pending().await;
        }
        if let Some(order) = *orders.borrow_and_update() {
            return order;
        }
    }
}
