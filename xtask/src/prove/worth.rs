//! What was measured of each combination, and what a protection is worth by that.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::load::disturb::Disturbance;
use crate::load::experiment::Protection;
use crate::record::meta::End;
use crate::record::proof::{Measured, NotMeasured, Proof, Worth};
use crate::share::{Share, thousands};
use crate::summary::Summary;

/// What happens while the load is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// A disturbance in its middle.
    During(Disturbance),
    /// The ingress controller starts; with the gates the load begins behind them.
    ControllerStart,
}

impl Occasion {
    /// As it stands in a sentence.
    pub(super) fn words(self) -> &'static str {
        match self {
            Occasion::During(Disturbance::Rollout) => "in a rollout",
            Occasion::During(Disturbance::ScaleDown) => "in a scale-down",
            Occasion::During(Disturbance::PodDelete) => "when a pod is deleted",
            Occasion::During(Disturbance::PodKill) => "when a pod is killed",
            Occasion::During(Disturbance::IngressRestart) => "when the ingress controller is replaced",
            Occasion::ControllerStart => "while the ingress controller starts",
        }
    }

    /// Whether a protection is about it.
    pub(super) fn concerns(self, protection: Protection) -> bool {
        match self {
            Occasion::During(disturbance) => protection.concerns().contains(&disturbance),
            Occasion::ControllerStart => protection == Protection::Gates,
        }
    }
}

/// An occasion, with all protections or without one.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) occasion: Occasion,
    pub(super) without: Option<Protection>,
    /// How many requests of how many failed, run by run.
    pub(super) runs: Vec<(u64, u64)>,
    /// How many were answered only after a try that was lost.
    pub(super) late: u64,
    /// p99 of each run, in milliseconds.
    p99: Vec<f64>,
    /// How many failed by which mechanism.
    mechanisms: BTreeMap<String, u64>,
    /// Runs in a row that say nothing about the server.
    pub(super) invalid: usize,
    /// How long the last one took.
    pub(super) took: Option<Duration>,
    /// Why it can't be measured.
    pub(super) impossible: Option<String>,
}

impl Cell {
    pub(super) fn new(occasion: Occasion, without: Option<Protection>) -> Cell {
        Cell {
            occasion,
            without,
            runs: Vec::new(),
            late: 0,
            p99: Vec::new(),
            mechanisms: BTreeMap::new(),
            invalid: 0,
            took: None,
            impossible: None,
        }
    }

    /// What is measured, in words.
    pub(super) fn title(&self) -> String {
        let what = self.without.map_or_else(
            || "with all protections".to_owned(),
            |protection| format!("without {}", protection.name()),
        );
        format!("{what}, {}", self.occasion.words())
    }

    /// Takes what a run came to.
    pub(super) fn take(&mut self, end: &End, summary: &Summary) {
        self.runs.push((end.buckets.failed(), end.scheduled));
        self.p99.extend(end.latency_ms.map(|latency| latency.p99));
        let list = |name: &str| summary.get(name).and_then(Value::as_array).into_iter().flatten();
        self.late += list("late").count() as u64;
        for group in list("groups") {
            let name = group["mechanism"].as_str().unwrap_or_default().to_owned();
            *self.mechanisms.entry(name).or_default() += group["count"].as_u64().unwrap_or(0);
        }
    }

    pub(super) fn share(&self) -> Share {
        Share::of(&self.runs)
    }

    /// Whether the share of failed requests is known to `width`, or to half of itself.
    pub(super) fn is_known(&self, width: f64) -> bool {
        let share = self.share();
        !self.runs.is_empty() && share.width() <= width.max(share.value() / 2.0)
    }

    /// The middle of the runs' p99, in milliseconds.
    fn p99(&self) -> Option<f64> {
        let mut all = self.p99.clone();
        all.sort_unstable_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }

    fn measured(&self) -> Measured {
        let share = self.share();
        Measured {
            failed: share.some,
            requests: share.of,
            share: share.value(),
            interval: [share.low, share.high],
            late: self.late,
            p99_ms: self.p99(),
            runs: self.runs.len(),
            mechanisms: self.mechanisms.clone(),
        }
    }

    /// Why it was not measured.
    fn reason(&self) -> String {
        match (&self.impossible, self.invalid) {
            (Some(why), _) => why.clone(),
            (None, 0) => "there was no time left for it".to_owned(),
            (None, n) => format!("{n} runs were invalid: the generator could not keep its schedule"),
        }
    }
}

/// What a protection is worth by loads without it, and with all of them where there are any.
fn worth(protection: Protection, cell: &Cell, with: Option<&Cell>) -> Worth {
    let without = cell.share();
    let with_all = with.map(Cell::share);
    let fails = without.requests(&format!("fail {}", cell.occasion.words()));
    // `without pre-stop 1.0 % of requests fail in a rollout, 95 % CI 0.5–1.9; with it 0 of 12,000`.
    let mut sentence = format!("without {} {fails}", protection.name());
    if cell.late > 0 {
        sentence += &format!(", and {} are answered after a lost try", thousands(cell.late));
    }
    if let Some(with) = with_all {
        sentence += &format!("; with it {with}");
    }
    Worth {
        protection: protection.name().to_owned(),
        occasion: cell.occasion.words().to_owned(),
        without: cell.measured(),
        with: with.map(Cell::measured),
        proven: with_all.is_some_and(|with| without.value() > with.value() && without.differs_from(&with)),
        sentence,
    }
}

/// What each protection is worth, as far as that was measured by loads of this kind.
pub(super) fn proof(load: String, cells: &[Cell]) -> Proof {
    let with = |occasion: Occasion| {
        cells.iter().find(|cell| cell.occasion == occasion && cell.without.is_none() && !cell.runs.is_empty())
    };
    let row = |cell: &Cell| {
        let protection = cell.without.filter(|_| !cell.runs.is_empty())?;
        Some(worth(protection, cell, with(cell.occasion)))
    };
    let unmeasured = cells.iter().filter(|cell| cell.runs.is_empty());
    Proof {
        load,
        rows: cells.iter().filter_map(row).collect(),
        not_measured: unmeasured.map(|cell| NotMeasured { what: cell.title(), why: cell.reason() }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(without: Option<Protection>, runs: &[(u64, u64)], p99: f64) -> Cell {
        let occasion = Occasion::During(Disturbance::Rollout);
        Cell { runs: runs.to_vec(), p99: vec![p99], ..Cell::new(occasion, without) }
    }

    #[test]
    fn each_protection_is_worth_a_line_and_a_sentence() {
        let mut missing = Cell::new(Occasion::ControllerStart, Some(Protection::Gates));
        missing.impossible = Some("on the sandbox alone".to_owned());
        let cells = [
            cell(None, &[(0, 6000), (0, 6000)], 12.0),
            cell(Some(Protection::PreStop), &[(7, 600), (5, 600)], 230.4),
            cell(Some(Protection::Grace), &[(0, 600)], 5017.0),
            missing,
        ];
        insta::assert_snapshot!(proof(String::new(), &cells).text(), @r"
        protection     occasion                               failed without      failed with     p99 (ms)
        pre-stop       in a rollout                              12 of 1,200      0 of 12,000     230 / 12
        grace          in a rollout                                 0 of 600      0 of 12,000    5017 / 12

        ✓ without pre-stop 1.0 % of requests fail in a rollout, 95 % CI 0.6–1.7; with it 0 of 12,000
        – without grace 0 of 600 requests fail in a rollout; with it 0 of 12,000
        not measured: without gates, while the ingress controller starts: on the sandbox alone
        ");
    }

    #[test]
    fn what_is_measured_on_one_side_alone_proves_nothing() {
        let mut alone = [cell(Some(Protection::PreStop), &[(7, 600)], 1.0)];
        let row = |cells: &[Cell]| proof(String::new(), cells).rows.remove(0);
        assert!(!row(&alone).proven);
        assert_eq!(
            row(&alone).sentence,
            "without pre-stop 1.2 % of requests fail in a rollout, 95 % CI 0.6–2.4"
        );
        (alone[0].runs, alone[0].late) = (vec![(0, 600)], 41);
        let late =
            "without pre-stop 0 of 600 requests fail in a rollout, and 41 are answered after a lost try";
        assert_eq!(row(&alone).sentence, late);
        assert!(proof(String::new(), &[cell(None, &[(0, 600)], 1.0)]).rows.is_empty());
    }
}
