//! Where the time of a run went.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Kind, State};

/// One step or gate of a run, as it was.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// Step or gate.
    pub kind: Kind,
    /// Seconds from the run's begin to its start.
    pub start_seconds: f64,
    /// Seconds from the run's begin to its end; equal to the start while it runs.
    pub end_seconds: f64,
    /// How it ended; `Start` while it runs.
    pub state: State,
    /// In one line, what or why.
    pub detail: String,
    /// Indices of the spans that were awaited last before it began.
    pub after: Vec<usize>,
}

impl Span {
    /// How long it took.
    pub fn seconds(&self) -> f64 {
        self.end_seconds - self.start_seconds
    }

    fn json(&self, all: &[Span]) -> Value {
        let round = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
        json!({
            "name": self.name,
            "kind": self.kind,
            "state": self.state,
            "start_seconds": round(self.start_seconds),
            "seconds": round(self.seconds()),
            "waited_for": self.waited_for(all),
            "detail": self.detail,
        })
    }

    fn waited_for<'s>(&self, all: &'s [Span]) -> Vec<&'s str> {
        self.after.iter().map(|&before| all[before].name.as_str()).collect()
    }
}

/// The spans as the JSON summary has them.
pub(super) fn steps(spans: &[Span]) -> Value {
    spans.iter().map(|span| span.json(spans)).collect()
}

/// The chain of spans that decided how long the run took, first to last.
pub fn critical_path(spans: &[Span]) -> Vec<String> {
    path(spans).into_iter().map(|index| spans[index].name.clone()).collect()
}

fn path(spans: &[Span]) -> Vec<usize> {
    let by_end = |a: &usize, b: &usize| spans[*a].end_seconds.total_cmp(&spans[*b].end_seconds);
    let mut path = Vec::new();
    let mut next = (0..spans.len()).max_by(by_end);
    while let Some(index) = next {
        path.push(index);
        next = spans[index].after.iter().copied().filter(|&before| before < index).max_by(by_end);
    }
    path.reverse();
    path
}

/// The timing table: each span's own time, what it waited for, and whether it was on the critical path.
pub fn table(spans: &[Span]) -> String {
    let path = path(spans);
    let total = spans.iter().map(|span| span.end_seconds).fold(0.0, f64::max);
    let on_path: f64 = path.iter().map(|&index| spans[index].seconds()).sum();
    let mut text = format!("  {:<20} {:>8} {:>8}   {}\n", "step", "start", "took", "waited for");
    for (index, span) in spans.iter().enumerate() {
        let after = span.waited_for(spans);
        let mark = if path.contains(&index) { '*' } else { ' ' };
        let name = if span.kind == Kind::Gate { format!("└ {}", span.name) } else { span.name.clone() };
        let state = if span.state == State::Already { " (already)" } else { "" };
        let _ = writeln!(
            text,
            "{mark} {name:<20} {:>6.2} s {:>6.2} s   {}{state}",
            span.start_seconds,
            span.seconds(),
            if after.is_empty() { "-".to_owned() } else { after.join(", ") },
        );
    }
    let _ = writeln!(
        text,
        "  {:<20} {:>8} {:>6.2} s   {:.2} s on the critical path (*), {:.2} s beside it",
        "total",
        "",
        total,
        on_path,
        (total - on_path).max(0.0)
    );
    text
}
