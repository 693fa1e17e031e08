//! Readiness gates: one file a gate. A gate looks at the world through watches, says in one line what it still
//! waits for, opens at the event that makes its condition true, and fails early only on a sign that is permanent.
//!
//! Each gate's file has the [`Gate`] itself, which [`all`] lists, a pure `judge` of what was seen, and a driver that
//! sees: `wait` until it opens, `look` once.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures::future::LocalBoxFuture;
use futures::{Stream, StreamExt as _};

use crate::clusters::Cluster;
use crate::commands::Advice;
use crate::failure::{Attach as _, Cancelled, Evidence, Exit};
use crate::manifests::Manifests;
use crate::pipeline::{Branch, Done, Outcome, gate};

pub mod autoscaler;
mod bad_sign;
pub mod clock;
pub mod cluster;
mod events;
pub mod evidence;
pub mod image;
pub mod ingress_controller;
pub mod ingress_lease;
pub mod kind;
pub mod metrics;
pub mod pod;
pub mod rollout;
pub mod route;
pub mod settled;
pub mod watch;
pub mod workload;

#[cfg(test)]
pub(crate) mod tests;

/// What one look at the world says about a gate's condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict<T = ()> {
    /// It is true; the line says how.
    Open(T, String),
    /// Not yet; the line says what it waits for.
    Closed(String),
    /// Not yet, and there is a bad sign that may still pass.
    Suspect(String),
    /// It can't come true any more; the line says why, then what to try.
    Doomed(String, Advice),
}

impl<T> Verdict<T> {
    /// The same, where what is behind the gate is of no interest.
    pub fn without_value(self) -> Verdict {
        match self {
            Verdict::Open(_, how) => Verdict::Open((), how),
            Verdict::Closed(why) => Verdict::Closed(why),
            Verdict::Suspect(why) => Verdict::Suspect(why),
            Verdict::Doomed(why, hint) => Verdict::Doomed(why, hint),
        }
    }
}

/// In one line, without what to try: `closed: 1 of 2 updated pods Ready`.
impl<T> fmt::Display for Verdict<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, line) = match self {
            Verdict::Open(_, line) => ("open", line),
            Verdict::Closed(line) => ("closed", line),
            Verdict::Suspect(line) => ("suspect", line),
            Verdict::Doomed(line, _) => ("doomed", line),
        };
        write!(f, "{state}: {line}")
    }
}

/// A gate.
#[derive(Clone, Copy)]
pub struct Gate {
    /// Its name, as in the README's troubleshooting.
    pub name: &'static str,
    /// Its condition, in one line.
    pub opens_when: &'static str,
    /// How long it may stay closed.
    pub deadline: Duration,
    /// How it is asked of a cluster as it is; nothing for a gate that only the step before it can pass.
    pub standing: Option<Standing>,
}

/// A gate's two ways of asking, for who asks all gates.
#[derive(Clone, Copy)]
pub struct Standing {
    /// One look.
    pub look: for<'s> fn(&'s Site<'s>) -> LocalBoxFuture<'s, Result<Verdict>>,
    /// Waits until it opens.
    pub wait: for<'w, 'cx> fn(&'w mut Branch<'cx>, &'w Site<'w>) -> LocalBoxFuture<'w, Result<()>>,
}

/// What the gates are asked of: a cluster, and what is deployed to it.
#[derive(Clone, Copy)]
pub struct Site<'s> {
    /// The cluster.
    pub cluster: &'s Cluster,
    /// What is deployed to it.
    pub manifests: &'s Manifests,
    /// And where.
    pub namespace: &'s str,
}

impl Site<'_> {
    fn autoscaler(&self) -> &str {
        self.manifests.autoscaler_name().unwrap_or_default()
    }

    /// The rollout of what is deployed.
    pub fn rollout(&self) -> rollout::Rollout {
        rollout::Rollout::as_deployed(self.namespace, self.manifests)
    }
}

/// The gates, in the order in which `up` comes to them.
pub fn all() -> [&'static Gate; 9] {
    [
        &cluster::GATE,
        &ingress_lease::GATE,
        &ingress_controller::GATE,
        &metrics::GATE,
        &image::GATE,
        &rollout::GATE,
        &settled::GATE,
        &route::GATE,
        &autoscaler::GATE,
    ]
}

/// The gates that a cluster with these manifests can be asked for at any time; those of ingress-nginx and of the
/// metrics API where it has them.
pub fn standing(
    manifests: &Manifests,
    nginx: bool,
    metrics: bool,
) -> impl Iterator<Item = (&'static Gate, Standing)> {
    let scales = manifests.autoscaler_name().is_some();
    all()
        .into_iter()
        .filter(move |gate| scales || gate.name != autoscaler::GATE.name)
        .filter(move |gate| metrics || gate.name != metrics::GATE.name)
        .filter(move |gate| {
            nginx || ![ingress_lease::GATE.name, ingress_controller::GATE.name].contains(&gate.name)
        })
        .filter_map(|gate| Some((gate, gate.standing?)))
}

/// The failure's evidence is gathered within this time.
pub const BUNDLE: Duration = Duration::from_secs(5);

/// Waits at a gate: takes verdicts as they come, until one ends it, the deadline passes, or the run is stopped.
///
/// `further` is the command to look further; `evidence` is asked once, when the gate fails.
///
/// # Errors
/// Exit code 30 when doomed, 31 at the deadline, each with the evidence; the stream's own errors.
pub async fn wait<T>(
    branch: &mut Branch<'_>,
    spec: &Gate,
    further: String,
    verdicts: impl Stream<Item = Result<Verdict<T>>>,
    evidence: impl AsyncFnOnce() -> Evidence,
) -> Result<Done<T>> {
    wait_as(branch, spec.name.to_owned(), spec.deadline, further, verdicts, evidence).await
}

/// [`wait`], under a name that only the run knows.
///
/// # Errors
/// As [`wait`].
pub async fn wait_as<T>(
    branch: &mut Branch<'_>,
    name: String,
    deadline: Duration,
    further: String,
    verdicts: impl Stream<Item = Result<Verdict<T>>>,
    evidence: impl AsyncFnOnce() -> Evidence,
) -> Result<Done<T>> {
    let cx = branch.cx;
    let deadline = deadline.min(cx.patience);
    let shown = name.clone();
    let work = async |running: &crate::pipeline::Running<'_>| {
        let until = tokio::time::Instant::now() + deadline;
        let mut verdicts = std::pin::pin!(verdicts);
        let mut first = true;
        let mut waits_for = "the first look".to_owned();
        let mut warned = String::new();
        let (exit, why, hint) = loop {
            let verdict = tokio::select! {
                biased;
                () = cx.stopped() => return Err(Cancelled.into()),
                verdict = verdicts.next() => verdict,
                () = tokio::time::sleep_until(until) => {
                    let why = format!("still closed after {} s: {waits_for}", deadline.as_secs());
                    break (Exit::GateTimeout, why, further);
                }
            };
            match verdict {
                Some(Ok(Verdict::Open(value, how))) if first => return Ok(Outcome::Already(value, how)),
                Some(Ok(Verdict::Open(value, how))) => return Ok(Outcome::Did(value, how)),
                Some(Ok(Verdict::Closed(reason))) => {
                    if reason != waits_for {
                        running.at(reason.as_str());
                    }
                    waits_for = reason;
                }
                Some(Ok(Verdict::Suspect(reason))) => {
                    if reason != waits_for {
                        running.at(reason.as_str());
                    }
                    // Seconds and counts that go on are the same sign.
                    let sign = reason.replace(char::is_numeric, "");
                    if sign != warned {
                        running.warn(reason.as_str());
                        warned = sign;
                    }
                    waits_for = reason;
                }
                Some(Ok(Verdict::Doomed(why, advice))) => {
                    break (Exit::GateDoomed, why, cx.commands.write_out(&advice));
                }
                Some(Err(error)) => return Err(error.context(format!("watching for gate {name}"))),
                None => return Err(anyhow!("the watch for gate {name} ended")),
            }
            first = false;
        };
        // The bundle must not outlast the patience of whoever waits for it.
        let bundle = tokio::time::timeout(BUNDLE, evidence()).await.unwrap_or_default();
        Err(anyhow!("gate {name}: {why}")).attach(bundle).hint(hint).exit(exit)
    };
    gate(branch, shown, deadline, work).await
}

/// A look now and then, for conditions that can't be watched, such as HTTP probes.
pub fn poll<T>(
    every: Duration,
    look: impl AsyncFnMut() -> Result<Verdict<T>>,
) -> impl Stream<Item = Result<Verdict<T>>> {
    futures::stream::unfold((look, None::<Instant>), move |(mut look, last)| async move {
        if let Some(last) = last {
            tokio::time::sleep(every.saturating_sub(last.elapsed())).await;
        }
        let began = Instant::now();
        let verdict = look().await;
        Some((verdict, (look, Some(began))))
    })
}
