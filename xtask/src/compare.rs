//! `cargo xtask compare`: whether a load run is worse than another, told from chance. Needs no cluster.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use serde_json::{Value, json};
use xtask_load::record::{Outcome, Record};
use xtask_load::tally::Latency;

use crate::commands::Advice;
use crate::cx::Cx;
use crate::failure::{Attach as _, Exit};
use crate::options::Format;
use crate::record::meta::{End, Judged, Meta, Verdict};
use crate::record::{RECORDS, find, for_each_line};
use crate::summary::Summary;
use change::{Change, Latencies, changes, failures};

mod change;

/// What differs by less is of no account, however sure it is.
const NEGLIGIBLE: f64 = 0.05;
/// One figure of a latency's distribution, in milliseconds.
type Figure = fn(&Latency) -> f64;
/// The percentiles that are compared.
const PERCENTILES: [(&str, f64, Figure); 4] =
    [("p50", 0.5, |l| l.p50), ("p90", 0.9, |l| l.p90), ("p95", 0.95, |l| l.p95), ("p99", 0.99, |l| l.p99)];

/// Two runs.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// The run to compare with: its name or folder.
    pub base: String,
    /// The run that may be worse; the newest load run without it.
    pub run: Option<String>,
}

/// A run that can be compared.
#[derive(Debug)]
pub struct Sample {
    dir: PathBuf,
    meta: Meta,
    end: End,
    latencies: Latencies,
}

/// What is compared, in one line of the table.
#[derive(Clone, Debug)]
struct Row {
    name: &'static str,
    /// Nothing where nothing was answered.
    base: Option<f64>,
    run: Option<f64>,
    /// The unit of both.
    unit: &'static str,
    change: Change,
    /// The unit of a hundred times the change.
    change_unit: &'static str,
    judgement: Judgement,
}

/// What a change comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    Better,
    Same,
    Worse,
    /// More requests would tell.
    Unclear,
    /// There are too few to say anything.
    TooFew,
}

/// How a run compares with another.
#[derive(Clone, Debug)]
pub struct Comparison {
    base: PathBuf,
    rows: Vec<Row>,
    /// What else than the app may make the difference.
    differs: Vec<String>,
}

/// Compares two runs.
///
/// # Errors
/// When a run can't be compared; when the second is worse (exit code 40).
pub fn run(cx: &Cx, args: &CompareArgs) -> Result<Summary> {
    let runs = cx.home().join("runs");
    let base = Sample::read(&find(&runs, Some(&args.base))?)?;
    let run = Sample::read(&find(&runs, args.run.as_deref())?)?;
    let comparison = base.compare(&run);
    if cx.shared.output == Format::Human {
        cx.output.note(&format!("{} compared with {}", cx.short(&run.dir), cx.short(&base.dir)));
        cx.output.data(comparison.text().trim_end());
    }
    for differs in &comparison.differs {
        cx.output.note(&format!("warning: {differs}"));
    }
    let mut summary = Summary::new();
    summary.insert("run".into(), json!(run.dir));
    summary.insert("comparison".into(), comparison.json());
    let worse: Vec<_> = comparison.rows.iter().filter(|row| row.judgement == Judgement::Worse).collect();
    if worse.is_empty() {
        return Ok(summary);
    }
    let worse: Vec<_> = worse.iter().map(|row| format!("{} {}", row.name, row.change_text())).collect();
    Err(anyhow!("worse: {}", worse.join(", "))).attach(summary).exit(Exit::Threshold)
}

impl Sample {
    /// Reads a run.
    ///
    /// # Errors
    /// When its records can't be read (exit code 20), or it says nothing about the server (41).
    pub fn read(dir: &Path) -> Result<Sample> {
        Sample::of(dir, &Meta::read(dir).hint(Advice::Xtask("load", "makes a new run"))?)
    }

    /// Reads the records of a run that said this of itself.
    ///
    /// # Errors
    /// As [`Sample::read`].
    pub fn of(dir: &Path, meta: &Meta) -> Result<Sample> {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let end = meta
            .end
            .clone()
            .with_context(|| format!("the run {name} has no end: it was killed, or is still under way"))?;
        if let Verdict::Invalid(why) = end.verdict() {
            return Err(anyhow!("the run {name} is invalid, and says nothing about the server: {why}"))
                .exit(Exit::InvalidRun);
        }
        let mut answered = Vec::new();
        for_each_line(&dir.join(RECORDS), |line| {
            let Ok(record) = serde_json::from_str::<Record>(line) else { return };
            // As the percentiles of a run count them: quick errors would flatter.
            if matches!(record.outcome, Outcome::Ok | Outcome::Timeout) && record.sent_us.is_some() {
                answered.push((record.n, record.end_us.saturating_sub(record.due_us)));
            }
        })?;
        let expected = end.buckets.ok + end.buckets.timeout;
        if answered.len() as u64 != expected {
            return Err(anyhow!(
                "{RECORDS} of the run {name} holds {} of {expected} answers",
                answered.len()
            ))
            .hint("a run that has lost records can't be compared");
        }
        answered.sort_unstable();
        let latencies: Vec<u64> = answered.into_iter().map(|(_, us)| us).collect();
        Ok(Sample { dir: dir.to_owned(), meta: meta.clone(), end, latencies: Latencies::new(&latencies) })
    }

    /// What it came to.
    pub fn end(&self) -> &End {
        &self.end
    }

    /// How another run compares with this one.
    #[must_use]
    pub fn compare(&self, run: &Sample) -> Comparison {
        let quantiles: Vec<f64> = PERCENTILES.iter().map(|(_, quantile, _)| *quantile).collect();
        let changes = changes(&self.latencies, &run.latencies, &quantiles);
        let mut rows: Vec<Row> = PERCENTILES
            .iter()
            .zip(changes)
            .map(|((name, quantile, figure), change)| {
                let known = self.latencies.knows(*quantile) && run.latencies.knows(*quantile);
                let judgement = if known { judge(&change, NEGLIGIBLE) } else { Judgement::TooFew };
                let (base, run) =
                    (self.end.latency_ms.as_ref().map(figure), run.end.latency_ms.as_ref().map(figure));
                Row { name, base, run, unit: "ms", change, change_unit: "%", judgement }
            })
            .collect();
        let failed = |sample: &Sample| (sample.end.buckets.failed(), sample.end.scheduled);
        let change = failures(failed(self), failed(run));
        let share = |sample: &Sample| sample.end.success_rate().map(|rate| 100.0 - rate);
        rows.push(Row {
            name: "failed",
            base: share(self),
            run: share(run),
            unit: "%",
            judgement: judge(&change, 0.0),
            change,
            change_unit: "points",
        });
        let pairs = [
            ("request", &self.meta.request, &run.meta.request),
            ("plan", &self.meta.plan, &run.meta.plan),
            ("host", &self.meta.host, &run.meta.host),
        ];
        let other = pairs.into_iter().filter(|(_, base, run)| base != run);
        let mut differs: Vec<_> = other
            .map(|(what, base, run)| format!("the runs differ in their {what}: {base}; {run}"))
            .collect();
        let sides = [("base", self), ("second", run)];
        let stopped = sides.into_iter().filter(|(_, sample)| sample.end.interrupted);
        differs.extend(stopped.map(|(which, _)| format!("the {which} run was stopped before its end")));
        Comparison { base: self.dir.clone(), rows, differs }
    }
}

/// What is beyond chance, and more than `negligible`.
fn judge(change: &Change, negligible: f64) -> Judgement {
    let (low, high) = (*change.interval.start(), *change.interval.end());
    if low > 0.0 && change.measured >= negligible {
        Judgement::Worse
    } else if high < 0.0 && change.measured <= -negligible {
        Judgement::Better
    } else if low >= -2.0 * NEGLIGIBLE && high <= 2.0 * NEGLIGIBLE {
        Judgement::Same
    } else {
        Judgement::Unclear
    }
}

impl Judgement {
    fn word(self) -> &'static str {
        match self {
            Judgement::Better => "better",
            Judgement::Same => "same",
            Judgement::Worse => "worse",
            Judgement::Unclear => "unclear",
            Judgement::TooFew => "too few requests",
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Judgement::Better | Judgement::Same => "✓",
            Judgement::Worse => "✗",
            Judgement::Unclear | Judgement::TooFew => "–",
        }
    }
}

impl Row {
    /// `+10.7 % (99 % sure: +9.1 to +12.4)`.
    fn change_text(&self) -> String {
        let (low, high) = (self.change.interval.start() * 100.0, self.change.interval.end() * 100.0);
        let Row { change, change_unit, .. } = self;
        format!("{:+.1} {change_unit} (99 % sure: {low:+.1} to {high:+.1})", change.measured * 100.0)
    }

    fn value(&self, value: Option<f64>) -> String {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1} {}", self.unit))
    }
}

impl Comparison {
    /// Each percentile as a condition that the run meets or not.
    pub fn judged(&self) -> Vec<Judged> {
        let judged = |row: &Row| Judged {
            threshold: format!("{} no worse than the baseline", row.name),
            value: Some(row.change.measured * 100.0),
            unit: format!(" {}", row.change_unit),
            met: row.judgement != Judgement::Worse,
        };
        self.rows.iter().filter(|row| row.judgement != Judgement::TooFew).map(judged).collect()
    }

    /// What else than the app may make the difference.
    pub fn differs(&self) -> &[String] {
        &self.differs
    }

    /// The table.
    pub fn text(&self) -> String {
        let mut text = format!("{:<8}{:>12}{:>12}  {}\n", "", "base", "run", "change");
        for row in &self.rows {
            let (mark, word) = (row.judgement.mark(), row.judgement.word());
            let change = match row.judgement {
                Judgement::TooFew => String::new(),
                _ => format!("{}: ", row.change_text()),
            };
            let (base, run) = (row.value(row.base), row.value(row.run));
            let _ = writeln!(text, "{:<8}{base:>12}{run:>12}  {mark} {change}{word}", row.name);
        }
        text
    }

    /// As it is in a JSON summary.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let (low, high) = (row.change.interval.start(), row.change.interval.end());
            json!({
                "name": row.name, "unit": row.unit, "base": row.base, "run": row.run,
                "change": row.change.measured, "interval": [low, high], "verdict": row.judgement.word(),
            })
        });
        json!({"base": self.base, "rows": rows.collect::<Value>(), "differs": self.differs})
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
    use xtask_load::tally::Buckets;

    use super::*;

    /// Requests of a run: enough that p95 is judged.
    const REQUESTS: u64 = 1500;

    /// A run whose latencies go as those of a real server: log-normal, each leaning on the last; a slow drift; stalls
    /// that hold up several in a row; and a run as a whole that is a little quicker or slower than the next. On a busy
    /// machine another program takes its time for some fifty requests, about three times a run.
    fn run(seed: u64, factor: f64, is_busy: bool) -> Sample {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut uniform = || (f64::from(random.next_u32()) + 0.5) / f64::from(u32::MAX);
        let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
        let whole = 1.0 + 0.005 * normal();
        let (mut leaning, mut drift, mut stall, mut busy) = (0.0, 0.0, 0.0, 0.0);
        let us: Vec<u64> = (0..REQUESTS)
            .map(|_| {
                leaning = 0.6 * leaning + normal();
                drift = 0.99 * drift + 0.003 * normal();
                stall = if normal() > 2.6 { 120_000.0 } else { 0.6 * stall };
                let is_taken = is_busy && normal() > 2.9;
                busy = if is_taken { 20_000.0 * (1.0 + normal().abs()) } else { 0.98 * busy };
                (80_000.0 * factor * whole * (0.12 * leaning + drift).exp() + stall + busy) as u64
            })
            .collect();
        let mut sorted = us.clone();
        sorted.sort_unstable();
        let at = |quantile: f64| sorted[(sorted.len() as f64 * quantile) as usize] as f64 / 1e3;
        let latency =
            Latency { p50: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99), ..Latency::default() };
        let meta = json!({
            "began": "2026-01-02T03:04:05Z", "entry": "", "host": "", "request": "", "namespace": "",
            "plan": "",
        });
        let end = json!({
            "scheduled": REQUESTS, "seconds": 60.0, "own_cpu": 0.1, "gaps": [],
            "buckets": Buckets { ok: REQUESTS, ..Buckets::default() },
            "latency_ms": latency, "sent_latency_ms": latency, "lag_ms": latency,
        });
        Sample {
            dir: PathBuf::new(),
            meta: serde_json::from_value(meta).expect("a run"),
            end: serde_json::from_value(end).expect("its end"),
            latencies: Latencies::new(&us),
        }
    }

    /// In how many of 40 pairs of runs the second is called worse.
    fn worse(factor: f64, is_busy: bool) -> usize {
        let is_worse = |pair: &u64| {
            let (base, run) = (run(2 * pair, 1.0, is_busy), run(2 * pair + 1, factor, is_busy));
            base.compare(&run).rows.iter().any(|row| row.judgement == Judgement::Worse)
        };
        (0..40).filter(is_worse).count()
    }

    #[test]
    fn equal_runs_are_equal_and_a_tenth_more_is_found() {
        let (equal, slower) = (worse(1.0, false), worse(1.1, false));
        assert!(equal <= 2 && slower >= 38, "of 40 pairs, {equal} false alarms and {slower} found");
    }

    #[test]
    fn what_else_the_machine_does_is_no_false_alarm() {
        let equal = worse(1.0, true);
        assert!(equal <= 2, "of 40 pairs, {equal} false alarms");
    }
}
