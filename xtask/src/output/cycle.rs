//! One round of a command that goes on: a line for a person, an object for a program.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::timing::{self, Span, path};
use crate::commands::Commands;
use crate::failure::exit_of;

/// What took less is not worth a word.
const WORTH_A_WORD: f64 = 0.005;

/// One round.
pub struct Cycle<'c> {
    /// Counted from 1.
    pub number: usize,
    /// The files that it was for; none for the first.
    pub changed: &'c [String],
    /// What ran.
    pub spans: &'c [Span],
    /// How long, since the first of the files was saved.
    pub seconds: f64,
    /// How it ended.
    pub ending: Ending<'c>,
}

/// How a round ended.
#[derive(Clone, Copy)]
pub enum Ending<'c> {
    /// What was saved answers.
    Serves,
    /// It does not, and why.
    Failed(&'c anyhow::Error),
    /// Something newer was saved meanwhile.
    Cancelled,
}

impl Cycle<'_> {
    /// `app/src/main.rs and 2 more: serves after 3.91 s (image 2.62 (compile 2.40), rollout 1.10)`.
    pub(super) fn line(&self) -> String {
        let (mark, word, because) = match self.ending {
            Ending::Serves => ("✓", "serves", ""),
            Ending::Failed(_) => ("✗", "failed", ""),
            Ending::Cancelled => ("=", "cancelled", ", for a newer save"),
        };
        let what = match self.changed {
            [] => "start".to_owned(),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        };
        let mut times = String::new();
        for index in path(self.spans) {
            let span = &self.spans[index];
            if span.seconds() < WORTH_A_WORD {
                continue;
            }
            let separator = if times.is_empty() { "" } else { ", " };
            let _ = write!(times, "{separator}{} {:.2}", span.name, span.seconds());
            for (part, seconds) in &span.parts {
                let _ = write!(times, " ({part} {seconds:.2})");
            }
        }
        let times = if times.is_empty() { times } else { format!(" ({times})") };
        format!("{mark} {what}: {word} after {:.2} s{because}{times}", self.seconds)
    }

    pub(super) fn json(&self, commands: &Commands) -> Value {
        let verdict = match self.ending {
            Ending::Serves => "serves",
            Ending::Failed(_) => "failed",
            Ending::Cancelled => "cancelled",
        };
        let mut json = json!({
            "event": "cycle",
            "cycle": self.number,
            "changed": self.changed,
            "verdict": verdict,
            "seconds": timing::round(self.seconds),
            "steps": timing::steps(self.spans),
            "critical_path": timing::critical_path(self.spans),
        });
        if let (Ending::Failed(error), Some(fields)) = (self.ending, json.as_object_mut()) {
            fields.insert("exit_code".into(), (exit_of(error) as u8).into());
            super::tell_failure(fields, error, commands);
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, State};
    use super::*;

    fn span(name: &str, start_seconds: f64, end_seconds: f64, after: &[usize]) -> Span {
        Span {
            name: name.to_owned(),
            kind: Kind::Step,
            start_seconds,
            end_seconds,
            state: State::Done,
            detail: String::new(),
            parts: Vec::new(),
            after: after.to_vec(),
        }
    }

    #[test]
    fn a_round_is_one_line_with_the_times_that_it_took_so_long_for() {
        let image = Span { parts: vec![("compile", 2.4)], ..span("image", 0.03, 2.65, &[]) };
        let (gate, rollout) = (span("image-id", 2.65, 2.652, &[0]), span("rollout", 2.652, 3.75, &[1]));
        let spans = [image, gate, rollout, span("route", 3.75, 3.85, &[2]), span("smoke", 3.75, 3.91, &[2])];
        let line = |changed: &[&str], ending: Ending<'_>| {
            let changed: Vec<_> = changed.iter().map(|path| (*path).to_owned()).collect();
            Cycle { number: 2, changed: &changed, spans: &spans, seconds: 3.912, ending }.line()
        };
        let times = "(image 2.62 (compile 2.40), rollout 1.10, smoke 0.16)";
        let saved = line(&["app/src/main.rs"], Ending::Serves);
        assert_eq!(saved, format!("✓ app/src/main.rs: serves after 3.91 s {times}"));
        assert_eq!(line(&[], Ending::Serves), format!("✓ start: serves after 3.91 s {times}"));
        let two = line(&["Cargo.lock", "Cargo.toml"], Ending::Cancelled);
        assert_eq!(two, format!("= Cargo.lock and 1 more: cancelled after 3.91 s, for a newer save {times}"));
        let failed = line(&["Cargo.toml"], Ending::Failed(&anyhow::anyhow!("no")));
        assert_eq!(failed, format!("✗ Cargo.toml: failed after 3.91 s {times}"));
    }
}
