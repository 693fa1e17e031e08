//! The one combinator that every step and gate goes through, and the way two branches run at once.
//!
//! A step returns [`Done`], which later steps take as an argument: the types are the edges of the pipeline, and
//! the timing table reads them back.

use std::ops::Deref;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cx::Cx;
use crate::failure::is_echo;
use crate::output::{Event, Kind, Span, State};

/// The result of a step or gate, and which one it was.
#[derive(Debug)]
pub struct Done<T> {
    value: T,
    /// Its place in the run.
    pub id: SpanId,
}

/// A step's or gate's place in the run.
#[derive(Clone, Copy, Debug)]
pub struct SpanId(pub(crate) usize);

impl<T> Deref for Done<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Done<T> {
    /// The same result, once a gate behind it has opened: what takes it waited for the gate.
    pub fn behind<G>(self, gate: &Done<G>) -> Done<T> {
        Done { value: self.value, id: gate.id }
    }
}

/// How a step or gate came to be done.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It did this just now.
    Did(T, String),
    /// It was so before, for this reason.
    Already(T, String),
}

/// A step or gate while it runs; it says through this what it is at.
pub struct Running<'cx> {
    cx: &'cx Cx,
    id: SpanId,
    kind: Kind,
    name: &'static str,
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

    /// The name of the step or gate.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How long it has been running.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn event(&self, state: State, detail: String) -> Event {
        Event {
            kind: self.kind,
            name: self.name.to_owned(),
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

/// Runs a step: `after` are the results it takes.
///
/// # Errors
/// The step's own, or [`crate::failure::Cancelled`] when the run was told to stop before or in the middle of it.
pub async fn step<T>(
    cx: &Cx,
    name: &'static str,
    after: &[SpanId],
    work: impl AsyncFnOnce(&Running<'_>) -> Result<Outcome<T>>,
) -> Result<Done<T>> {
    span(cx, Kind::Step, name, None, after, work).await
}

/// Runs what stands behind a gate; see [`crate::gates`].
///
/// # Errors
/// As [`step`].
pub async fn gate<T>(
    cx: &Cx,
    name: &'static str,
    deadline: Duration,
    after: &[SpanId],
    work: impl AsyncFnOnce(&Running<'_>) -> Result<Outcome<T>>,
) -> Result<Done<T>> {
    span(cx, Kind::Gate, name, Some(Instant::now() + deadline), after, work).await
}

async fn span<T>(
    cx: &Cx,
    kind: Kind,
    name: &'static str,
    deadline: Option<Instant>,
    after: &[SpanId],
    work: impl AsyncFnOnce(&Running<'_>) -> Result<Outcome<T>>,
) -> Result<Done<T>> {
    if cx.is_stopped() {
        return Err(crate::failure::Cancelled.into());
    }
    let began = Instant::now();
    let start_seconds = (began - cx.began).as_secs_f64();
    let id = {
        let mut spans = cx.spans();
        spans.push(Span {
            name: name.to_owned(),
            kind,
            start_seconds,
            end_seconds: start_seconds,
            state: State::Start,
            detail: String::new(),
            after: after.iter().map(|id| id.0).collect(),
        });
        SpanId(spans.len() - 1)
    };
    let running = Running { cx, id, kind, name, began, deadline };
    running.emit(State::Start, String::new());
    // Boxed here and in `both`: the futures of a whole pipeline nested by value overflow a stack.
    let result = Box::pin(work(&running)).await;
    let (state, detail) = match &result {
        Ok(Outcome::Did(_, detail)) => (State::Done, detail.clone()),
        Ok(Outcome::Already(_, reason)) => (State::Already, reason.clone()),
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
        Ok(Outcome::Did(value, _) | Outcome::Already(value, _)) => Ok(Done { value, id }),
        Err(error) => {
            if !is_echo(&error) {
                cx.stop_failed();
            }
            Err(error)
        }
    }
}

/// Runs two branches at once. A failure in one tells the other to stop, waits for it, and is the one reported.
///
/// # Errors
/// The cause, where one branch failed and the other only echoes that it was stopped.
pub async fn both<A, B>(
    a: impl Future<Output = Result<A>>,
    b: impl Future<Output = Result<B>>,
) -> Result<(A, B)> {
    match futures::join!(Box::pin(a), Box::pin(b)) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => Err(if is_echo(&a) { b } else { a }),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// [`both`], for three.
///
/// # Errors
/// As [`both`].
pub async fn all3<A, B, C>(
    a: impl Future<Output = Result<A>>,
    b: impl Future<Output = Result<B>>,
    c: impl Future<Output = Result<C>>,
) -> Result<(A, B, C)> {
    both(a, both(b, c)).await.map(|(a, (b, c))| (a, b, c))
}
