//! What `--dry-run` shows. Each step says beside its run what it would do, and each command, beside its own, in which
//! order: what is here is only how that is written.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cx::Cx;
use crate::gates::Gate;
use crate::options::Format;
use crate::summary::Summary;

/// A step, or what is waited for without one; and the gates behind it.
pub struct Planned {
    step: Option<&'static str>,
    /// What stands in a step's place.
    label: &'static str,
    does: Vec<String>,
    gates: Vec<&'static Gate>,
}

impl Planned {
    /// A step, by the name that it runs under.
    #[must_use]
    pub fn step(name: &'static str, does: Vec<String>) -> Planned {
        Planned { step: Some(name), label: name, does, gates: Vec::new() }
    }

    /// Gates that no step is before.
    #[must_use]
    pub fn gates(does: Vec<String>, gates: Vec<&'static Gate>) -> Planned {
        Planned { step: None, label: "wait", does, gates }
    }

    /// What goes on beside the steps.
    #[must_use]
    pub fn beside(does: Vec<String>) -> Planned {
        Planned { step: None, label: "beside", does, gates: Vec::new() }
    }

    /// The gate behind it.
    #[must_use]
    pub fn gate(mut self, gate: &'static Gate) -> Planned {
        self.gates.push(gate);
        self
    }
}

/// Prints a plan.
pub fn show(cx: &Cx, title: &str, plan: &[Planned]) -> Summary {
    if cx.shared.output == Format::Human {
        let text =
            if plan.is_empty() { "reads only, with or without --dry-run\n".to_owned() } else { text(plan) };
        cx.output.data(format!("{title}; nothing is changed\n{text}").trim_end());
    }
    [("plan".to_owned(), plan.iter().map(json).collect::<Value>())].into_iter().collect()
}

fn text(plan: &[Planned]) -> String {
    let mut text = String::new();
    for Planned { step, label, does, gates } in plan {
        // What neither does nor waits is a heading.
        let mut label = if step.is_none() && gates.is_empty() && *label == "wait" { "" } else { *label };
        for line in does {
            let _ = writeln!(text, "{label:<18} {line}");
            label = "";
        }
        for Gate { name, opens_when, deadline, .. } in gates {
            let _ = writeln!(text, "└ gate {name}: {opens_when}; within {} s", deadline.as_secs());
        }
    }
    text
}

fn json(planned: &Planned) -> Value {
    let gates: Vec<_> = planned
        .gates
        .iter()
        .map(|Gate { name, opens_when, deadline, .. }| {
            json!({"name": name, "opens_when": opens_when, "deadline_seconds": deadline.as_secs()})
        })
        .collect();
    json!({"step": planned.step, "does": planned.does, "gates": gates})
}
