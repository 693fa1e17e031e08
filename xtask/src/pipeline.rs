//! The one combinator that every step and gate goes through, and the way branches run at once.
//!
//! A step returns [`Done`], which later steps take as an argument: what a step needs is in its type. A [`Branch`] does
//! one thing after another, so what a step waited for is what its branch did last: it borrows the branch for as long as
//! it runs, and nobody has to say what the timing table shows.

use std::borrow::Cow;
use std::ops::Deref;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::join_all;
use tokio::sync::SetOnce;

use crate::cx::Cx;
use crate::failure::{Cancelled, is_echo};
use crate::output::{Event, Kind, Span, State};

/// The result of a step or gate that has ended well.
#[derive(Clone, Debug)]
pub struct Done<T>(T);

#[cfg(test)]
impl<T> Done<T> {
    /// As if a step had ended with it.
    pub(crate) fn with(value: T) -> Done<T> {
        Done(value)
    }
}

impl<T> Deref for Done<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A step's or gate's place in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub(crate) usize);

/// One thing after another: a run's only line, or one of several that run at once.
pub struct Branch<'cx> {
    /// The run.
    pub cx: &'cx Cx,
    /// What was awaited last: the next step waited for it.
    last: Vec<SpanId>,
}

impl<'cx> Branch<'cx> {
    /// A run's first branch; the others come from it.
    pub fn first(cx: &'cx Cx) -> Branch<'cx> {
        Branch { cx, last: Vec::new() }
    }

    fn fork(&self) -> Branch<'cx> {
        Branch { cx: self.cx, last: self.last.clone() }
    }

    /// Goes on from the ends of `branches`; one that did nothing adds nothing to the others.
    fn join(&mut self, branches: &[Branch<'cx>]) {
        let mut last = Vec::new();
        for id in branches.iter().filter(|branch| branch.last != self.last).flat_map(|branch| &branch.last) {
            if !last.contains(id) {
                last.push(*id);
            }
        }
        if !last.is_empty() {
            self.last = last;
        }
    }

    /// Runs two branches at once. A failure in one tells the other to stop, waits for it, and is the one reported.
    ///
    /// # Errors
    /// The cause, where one branch failed and the other only echoes that it was stopped.
    pub async fn both<A, B>(
        &mut self,
        a: impl AsyncFnOnce(&mut Branch<'cx>) -> Result<A>,
        b: impl AsyncFnOnce(&mut Branch<'cx>) -> Result<B>,
    ) -> Result<(A, B)> {
        let mut branches = [self.fork(), self.fork()];
        let [first, second] = &mut branches;
        let cx = self.cx;
        let results = futures::join!(
            Box::pin(async { or_stop(cx, a(first).await) }),
            Box::pin(async { or_stop(cx, b(second).await) })
        );
        self.join(&branches);
        match results {
            (Ok(a), Ok(b)) => Ok((a, b)),
            (Err(a), Err(b)) => Err(cause(a, b)),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    /// [`Branch::both`], for any number of one kind.
    ///
    /// # Errors
    /// As [`Branch::both`].
    pub async fn all<T>(
        &mut self,
        works: impl IntoIterator<Item = impl AsyncFnOnce(&mut Branch<'cx>) -> Result<T>>,
    ) -> Result<Vec<T>> {
        let works: Vec<_> = works.into_iter().collect();
        let mut branches: Vec<_> = works.iter().map(|_| self.fork()).collect();
        let cx = self.cx;
        let running =
            works.into_iter().zip(&mut branches).map(async |(work, branch)| or_stop(cx, work(branch).await));
        let results = join_all(running).await;
        self.join(&branches);
        let mut done = Vec::new();
        let mut failed = None;
        for result in results {
            match (result, failed.take()) {
                (Ok(value), before) => {
                    done.push(value);
                    failed = before;
                }
                (Err(error), None) => failed = Some(error),
                (Err(error), Some(before)) => failed = Some(cause(before, error)),
            }
        }
        failed.map_or(Ok(done), Err)
    }
}

/// A branch that fails tells the others to stop.
fn or_stop<T>(cx: &Cx, result: Result<T>) -> Result<T> {
    if result.as_ref().is_err_and(|error| !is_echo(error)) {
        cx.stop_failed();
    }
    result
}

/// Of two failures the one that is no echo of the other.
fn cause(a: anyhow::Error, b: anyhow::Error) -> anyhow::Error {
    if is_echo(&a) { b } else { a }
}

/// A result on its way from one branch to another.
pub struct Handoff<T>(SetOnce<(T, Vec<SpanId>)>);

impl<T> Handoff<T> {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Handoff<T> {
        Handoff(SetOnce::new())
    }

    /// Hands over what `branch` has come to; the first time counts.
    pub fn give(&self, branch: &Branch<'_>, value: T) {
        let _ = self.0.set((value, branch.last.clone()));
    }

    /// Waits for it: what comes next on `branch` waited for what the giver had done by then.
    ///
    /// # Errors
    /// [`crate::failure::Cancelled`] when the run is told to stop, as it is when the giver fails.
    pub async fn take(&self, branch: &mut Branch<'_>) -> Result<&T> {
        let (value, last) = branch.cx.unless_stopped(async { Ok(self.0.wait().await) }).await?;
        branch.last.extend(last);
        Ok(value)
    }

    /// [`Handoff::take`] in the middle of a step, which waited for it too.
    ///
    /// # Errors
    /// As [`Handoff::take`].
    pub async fn take_within(&self, step: &Running<'_>) -> Result<&T> {
        let (value, last) = step.cx.unless_stopped(async { Ok(self.0.wait().await) }).await?;
        step.cx.spans()[step.id.0].after.extend(last.iter().map(|id| id.0));
        Ok(value)
    }
}

impl<T> Default for Handoff<T> {
    fn default() -> Handoff<T> {
        Handoff::new()
    }
}

/// How a step or gate came to be done.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It did this just now.
    Did(T, String),
    /// It was so before, for this reason.
    Already(T, String),
    /// It did this, and what came of it is bad: marked as failed, while the run goes on to say why.
    Bad(T, String),
}

/// A step or gate while it runs; it says through this what it is at.
pub struct Running<'cx> {
    cx: &'cx Cx,
    id: SpanId,
    kind: Kind,
    name: Cow<'static, str>,
    began: Instant,
    deadline: Option<Instant>,
}

impl Running<'_> {
    /// Says what it waits for or is doing, in one line.
    pub fn at(&self, detail: impl Into<String>) {
        self.emit(State::Wait, detail.into());
    }

    /// A bad sign that does not end the run.
    pub fn warn(&self, detail: impl Into<String>) {
        self.cx.output.event(&Event { kind: Kind::Warning, ..self.event(State::Wait, detail.into()) });
    }

    /// How far long work has come, in one line.
    pub fn progress(&self, detail: impl Into<String>) {
        self.cx.output.event(&Event { kind: Kind::Progress, ..self.event(State::Wait, detail.into()) });
    }

    /// Does a part of it whose time is shown by a name of its own.
    pub async fn part<T>(&self, name: &'static str, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.await;
        self.cx.spans()[self.id.0].parts.push((name, began.elapsed().as_secs_f64()));
        done
    }

    /// The name of the step or gate.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long it has been running.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn event(&self, state: State, detail: String) -> Event {
        Event {
            kind: self.kind,
            name: self.name.to_string(),
            state,
            detail,
            at_seconds: round(self.cx.began.elapsed()),
            seconds: round(self.began.elapsed()),
            left_seconds: self
                .deadline
                .filter(|_| state == State::Wait)
                .map(|deadline| round(deadline.saturating_duration_since(Instant::now()))),
        }
    }

    fn emit(&self, state: State, detail: String) {
        self.cx.output.event(&self.event(state, detail));
    }
}

fn round(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Runs a step.
///
/// # Errors
/// The step's own, or [`crate::failure::Cancelled`] when the run was told to stop before or in the middle of it.
pub async fn step<T>(
    branch: &mut Branch<'_>,
    name: &'static str,
    work: impl AsyncFnOnce(&Running<'_>) -> Result<Outcome<T>>,
) -> Result<Done<T>> {
    span(branch, Kind::Step, name.into(), None, work).await
}

/// Runs what stands behind a gate; see [`crate::gates`].
///
/// # Errors
/// As [`step`].
pub async fn gate<T>(
    branch: &mut Branch<'_>,
    name: impl Into<Cow<'static, str>>,
    deadline: Duration,
    work: impl AsyncFnOnce(&Running<'_>) -> Result<Outcome<T>>,
) -> Result<Done<T>> {
    span(branch, Kind::Gate, name.into(), Some(Instant::now() + deadline), work).await
}

async fn span<T>(
    branch: &mut Branch<'_>,
    kind: Kind,
    name: Cow<'static, str>,
    deadline: Option<Instant>,
    work: impl AsyncFnOnce(&Running<'_>) -> Result<Outcome<T>>,
) -> Result<Done<T>> {
    let cx = branch.cx;
    if cx.is_stopped() {
        return Err(Cancelled.into());
    }
    let began = Instant::now();
    let start_seconds = (began - cx.began).as_secs_f64();
    let id = {
        let mut spans = cx.spans();
        spans.push(Span {
            name: name.to_string(),
            kind,
            start_seconds,
            end_seconds: start_seconds,
            state: State::Start,
            detail: String::new(),
            parts: Vec::new(),
            after: branch.last.iter().map(|id| id.0).collect(),
        });
        SpanId(spans.len() - 1)
    };
    branch.last = vec![id];
    let running = Running { cx, id, kind, name, began, deadline };
    running.emit(State::Start, String::new());
    // Boxed here and in `Branch::both`: the futures of a whole pipeline nested by value overflow a stack.
    let result = Box::pin(work(&running)).await;
    let (state, detail) = match &result {
        Ok(Outcome::Did(_, detail)) => (State::Done, detail.clone()),
        Ok(Outcome::Already(_, reason)) => (State::Already, reason.clone()),
        Ok(Outcome::Bad(_, detail)) => (State::Failed, detail.clone()),
        Err(error) => (State::Failed, crate::failure::paragraph(error)),
    };
    {
        let span = &mut cx.spans()[running.id.0];
        span.end_seconds = cx.began.elapsed().as_secs_f64();
        span.state = state;
        span.detail.clone_from(&detail);
    }
    running.emit(state, detail);
    match result {
        Ok(Outcome::Did(value, _) | Outcome::Already(value, _) | Outcome::Bad(value, _)) => Ok(Done(value)),
        // The cluster has gone under it: that is the cause, and the run has it.
        Err(error) if !is_echo(&error) && cx.has_gone().await => Err(Cancelled.into()),
        Err(error) => or_stop(cx, Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::gates::tests::cx;

    async fn did(branch: &mut Branch<'_>, name: &'static str) -> Result<Done<()>> {
        step(branch, name, async |_| Ok(Outcome::Did((), String::new()))).await
    }

    /// What each step waited for.
    fn waits(cx: &Cx) -> Vec<String> {
        let spans = cx.spans();
        let names =
            |ids: &[usize]| ids.iter().map(|&id| spans[id].name.as_str()).collect::<Vec<_>>().join("+");
        let mut lines: Vec<_> =
            spans.iter().map(|span| format!("{} after {}", span.name, names(&span.after))).collect();
        lines.sort_unstable();
        lines
    }

    #[tokio::test]
    async fn what_a_step_waited_for_is_what_its_branch_did_last() {
        let cx = cx();
        let branch = &mut Branch::first(&cx);
        let slow = Handoff::new();
        let result = async {
            did(branch, "start").await?;
            let left = async |branch: &mut Branch<'_>| {
                let done = did(branch, "slow").await?;
                slow.give(branch, done);
                Ok(())
            };
            let right = async |branch: &mut Branch<'_>| {
                did(branch, "quick").await?;
                let needs_both = async |branch: &mut Branch<'_>| {
                    slow.take(branch).await?;
                    did(branch, "needs-both").await
                };
                let idle = async |_: &mut Branch<'_>| Ok(());
                branch
                    .both(needs_both, async |branch| {
                        branch.both(idle, async |b| did(b, "needs-one").await).await
                    })
                    .await
            };
            branch.both(left, right).await?;
            branch
                .all([1, 2].map(|_| async |branch: &mut Branch<'_>| did(branch, "one-of-two").await))
                .await?;
            did(branch, "end").await
        };
        result.await.expect("all is well");
        assert_eq!(
            waits(&cx),
            [
                "end after one-of-two+one-of-two",
                "needs-both after quick+slow",
                "needs-one after quick",
                "one-of-two after slow+needs-both+needs-one",
                "one-of-two after slow+needs-both+needs-one",
                "quick after start",
                "slow after start",
                "start after ",
            ]
        );
    }

    #[tokio::test]
    async fn what_a_step_took_over_in_its_middle_it_waited_for() {
        let cx = cx();
        let branch = &mut Branch::first(&cx);
        let given = Handoff::new();
        let giver = async |branch: &mut Branch<'_>| {
            did(branch, "given").await?;
            given.give(branch, ());
            Ok(())
        };
        let taker = async |branch: &mut Branch<'_>| {
            let work = async |step: &Running<'_>| {
                given.take_within(step).await?;
                Ok(Outcome::Did((), String::new()))
            };
            step(branch, "taker", work).await
        };
        branch.both(taker, giver).await.expect("all is well");
        assert_eq!(waits(&cx), ["given after ", "taker after given"]);
    }

    /// Whether it fails in a step or between two.
    #[tokio::test]
    async fn who_waits_for_a_branch_that_fails_is_told_to_stop() {
        let cx = cx();
        let branch = &mut Branch::first(&cx);
        let never = Handoff::<()>::new();
        let result = branch
            .both(
                async |branch| never.take(branch).await.map(drop),
                async |_| Err::<(), _>(anyhow!("the cause")),
            )
            .await;
        assert_eq!(result.unwrap_err().to_string(), "the cause");
        assert!(cx.is_stopped());
    }
}
