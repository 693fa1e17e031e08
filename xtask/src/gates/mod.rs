//! Readiness gates: one file a gate. A gate looks at the world through watches, says in one line what it still
//! waits for, opens at the event that makes its condition true, and fails early only on a sign that can't mend.
//!
//! Each gate is two functions: a pure one that judges what was seen ([`Verdict`]), and a driver that sees.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures::{Stream, StreamExt as _};

use crate::commands::Advice;
use crate::cx::Cx;
use crate::failure::{Attach as _, Cancelled, Evidence, Exit};
use crate::pipeline::{Done, Outcome, SpanId, gate};

pub mod autoscaler;
pub mod clock;
pub mod cluster;
pub mod condition;
pub mod evidence;
pub mod image;
pub mod ingress_controller;
pub mod ingress_lease;
pub mod metrics;
pub mod pod;
pub mod rollout;
pub mod route;
pub mod watch;

#[cfg(test)]
mod tests;

/// What one look at the world says about a gate's condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict<T = ()> {
    /// It is true; the line says how.
    Open(T, String),
    /// Not yet; the line says what it waits for.
    Closed(String),
    /// Not yet, and there is a bad sign that may still mend.
    Suspect(String),
    /// It can't come true any more; the line says why, then what to try.
    Doomed(String, Advice),
}

/// What a gate is, beside its condition.
pub struct Gate<'g> {
    /// Its name, as in the README's troubleshooting.
    pub name: &'static str,
    /// How long it may stay closed.
    pub deadline: Duration,
    /// The results it takes.
    pub after: &'g [SpanId],
    /// The command to look further.
    pub look: String,
}

/// Waits at a gate: takes verdicts as they come, until one ends it, the deadline passes, or the run is stopped.
///
/// `evidence` is asked once, when the gate fails.
///
/// # Errors
/// Exit code 30 when doomed, 31 at the deadline, each with the evidence; the stream's own errors.
pub async fn wait<T>(
    cx: &Cx,
    spec: Gate<'_>,
    verdicts: impl Stream<Item = Result<Verdict<T>>>,
    evidence: impl AsyncFnOnce() -> Evidence,
) -> Result<Done<T>> {
    let Gate { name, deadline, after, look } = spec;
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
                    break (Exit::GateTimeout, why, look);
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
                Some(Err(error)) => return Err(error.context(format!("watching at the gate {name}"))),
                None => return Err(anyhow!("the watch at the gate {name} ended")),
            }
            first = false;
        };
        // The bundle must not outlast the patience of whoever waits for it.
        let bundle = tokio::time::timeout(Duration::from_secs(5), evidence()).await.unwrap_or_default();
        Err(anyhow!("gate {name}: {why}")).attach(bundle).hint(hint).exit(exit)
    };
    gate(cx, name, deadline, after, work).await
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
