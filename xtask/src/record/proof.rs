//! What each protection is worth, as `prove` found it: it goes into the summary of its run, and is read back from
//! there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::share::thousands;

/// What was measured, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// What each run sends, in one line.
    #[serde(default)]
    pub load: String,
    /// Each protection on each occasion.
    pub rows: Vec<Worth>,
    /// What was not measured, and why.
    pub not_measured: Vec<NotMeasured>,
}

/// What a protection is worth on an occasion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worth {
    /// Its name.
    pub protection: String,
    /// What happens while the load is sent, as it stands in a sentence.
    pub occasion: String,
    /// Loads without it.
    pub without: Measured,
    /// Loads with all protections; nothing where that could not be measured.
    pub with: Option<Measured>,
    /// Whether chance alone would not make the difference.
    pub proven: bool,
    /// All of it in a sentence.
    pub sentence: String,
}

/// What loads of one kind came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Requests that failed.
    pub failed: u64,
    /// Of so many.
    pub requests: u64,
    /// Their share.
    pub share: f64,
    /// Where that truly lies, with a confidence of 95 %.
    pub interval: [f64; 2],
    /// Answered only after a try that was lost.
    pub late: u64,
    /// The middle of the runs' p99, in milliseconds.
    pub p99_ms: Option<f64>,
    /// How many runs.
    pub runs: usize,
    /// How many failed by which mechanism.
    pub mechanisms: BTreeMap<String, u64>,
}

/// What was not measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotMeasured {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
}

impl Proof {
    /// `2 of 3 differences are more than chance`.
    pub fn headline(&self) -> String {
        let (proven, all) = (self.rows.iter().filter(|row| row.proven).count(), self.rows.len());
        let (differences, are) = if all == 1 { ("difference", "is") } else { ("differences", "are") };
        format!("{proven} of {all} {differences} {are} more than chance")
    }

    /// Why nothing was measured.
    pub fn reasons(&self) -> String {
        let mut reasons: Vec<&str> = self.not_measured.iter().map(|one| one.why.as_str()).collect();
        reasons.dedup();
        reasons.join("; ")
    }

    /// The table, and a sentence for each row.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |[protection, occasion, without, with, p99]: [&str; 5]| {
            let _ = writeln!(text, "{protection:<14} {occasion:<36} {without:>16} {with:>16} {p99:>12}");
        };
        if !self.rows.is_empty() {
            line(["protection", "occasion", "failed without", "failed with", "p99 (ms)"]);
        }
        let failed = |all: &Measured| format!("{} of {}", thousands(all.failed), thousands(all.requests));
        let p99 = |all: &Measured| all.p99_ms.map(|ms| format!("{ms:.0}"));
        let none = || "–".to_owned();
        for row in &self.rows {
            let with = row.with.as_ref();
            let both = [p99(&row.without), with.and_then(p99)].map(|ms| ms.unwrap_or_else(none)).join(" / ");
            line([
                &row.protection,
                &row.occasion,
                &failed(&row.without),
                &with.map_or_else(none, failed),
                &both,
            ]);
        }
        text.push('\n');
        for row in &self.rows {
            let mark = if row.proven { "✓" } else { "–" };
            let _ = writeln!(text, "{mark} {}", row.sentence);
        }
        for NotMeasured { what, why } in &self.not_measured {
            let _ = writeln!(text, "not measured: {what}: {why}");
        }
        text
    }
}
