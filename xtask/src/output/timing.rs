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
    /// What of its time has a name of its own, in seconds.
    pub parts: Vec<(&'static str, f64)>,
    /// Indices of the spans that were awaited last before it began.
    pub after: Vec<usize>,
}

impl Span {
    /// How long it took.
    pub fn seconds(&self) -> f64 {
        self.end_seconds - self.start_seconds
    }

    fn json(&self, all: &[Span]) -> Value {
        let mut json = json!({
            "name": self.name,
            "kind": self.kind,
            "state": self.state,
            "start_seconds": round(self.start_seconds),
            "seconds": round(self.seconds()),
            "waited_for": self.waited_for(all),
            "detail": self.detail,
        });
        if !self.parts.is_empty() {
            json["parts"] = self.parts.iter().map(|(name, seconds)| (*name, round(*seconds))).collect();
        }
        json
    }

    fn waited_for<'s>(&self, all: &'s [Span]) -> Vec<&'s str> {
        self.after.iter().map(|&before| all[before].name.as_str()).collect()
    }
}

/// Seconds as JSON has them.
pub(super) fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// The spans as the JSON summary has them.
pub(super) fn steps(spans: &[Span]) -> Value {
    spans.iter().map(|span| span.json(spans)).collect()
}

/// The chain of spans that decided how long the run took, first to last.
pub fn critical_path(spans: &[Span]) -> Vec<String> {
    path(spans).into_iter().map(|index| spans[index].name.clone()).collect()
}

pub(super) fn path(spans: &[Span]) -> Vec<usize> {
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
    // What begins before the end of what it waited for in its middle is not counted twice.
    let mut last_end = 0.0_f64;
    let mut on_path = 0.0;
    for span in path.iter().map(|&index| &spans[index]) {
        on_path += (span.end_seconds - span.start_seconds.max(last_end)).max(0.0);
        last_end = last_end.max(span.end_seconds);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_each_step_waited_for_and_which_decided() {
        let span = |name: &str, kind, start_seconds, end_seconds, state, after: &[usize]| Span {
            name: name.to_owned(),
            kind,
            start_seconds,
            end_seconds,
            state,
            detail: String::new(),
            parts: Vec::new(),
            after: after.to_vec(),
        };
        let spans = [
            span("preflight", Kind::Step, 0.0, 0.52, State::Done, &[]),
            span("weights", Kind::Step, 0.52, 0.54, State::Already, &[0]),
            span("compile", Kind::Step, 0.52, 65.0, State::Done, &[0]),
            span("cluster", Kind::Step, 0.52, 3.0, State::Done, &[0]),
            span("cluster", Kind::Gate, 3.0, 4.25, State::Done, &[3]),
            span("image", Kind::Step, 65.0, 66.5, State::Done, &[4, 1, 2]),
            span("rollout", Kind::Gate, 66.5, 70.0, State::Failed, &[5]),
        ];
        insta::assert_snapshot!(table(&spans));
        assert_eq!(critical_path(&spans), ["preflight", "compile", "image", "rollout"]);
    }
}
