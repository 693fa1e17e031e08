//! `--repeat`: the same load several times, each a run of its own, and how far their figures spread.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use xtask_load::tally::{Buckets, Latency};

use super::args::LoadArgs;
use super::{Telling, once};
use crate::failure::{Attach as _, Exit, attached, exit_of};
use crate::options::Format;
use crate::pipeline::Branch;
use crate::record::meta::{End, Meta, Verdict};
use crate::record::spread::{Part, Row, Spread};
use crate::summary::Summary;

/// A figure of a run; nothing where nothing was measured.
type Figure = fn(&End) -> Option<f64>;
/// The figures that are compared between the runs.
const FIGURES: [(&str, &str, Figure); 7] = [
    ("p50", "ms", |end| latency(end, |l| l.p50)),
    ("p90", "ms", |end| latency(end, |l| l.p90)),
    ("p95", "ms", |end| latency(end, |l| l.p95)),
    ("p99", "ms", |end| latency(end, |l| l.p99)),
    ("max", "ms", |end| latency(end, |l| l.max)),
    ("ok", "/s", |end| Some(end.buckets.ok as f64 / end.seconds.max(1e-9))),
    ("failed", "%", |end| end.success_rate().map(|rate| 100.0 - rate)),
];

fn latency(end: &End, pick: fn(&Latency) -> f64) -> Option<f64> {
    end.latency_ms.as_ref().map(pick)
}

fn rows(ends: &[&End]) -> Vec<Row> {
    let row = |(name, unit, figure): (&str, &str, Figure)| {
        Row::of(name, unit, ends.iter().filter_map(|end| figure(end)).collect())
    };
    FIGURES.into_iter().filter_map(row).collect()
}

/// One of the runs that has ended.
struct Told {
    dir: PathBuf,
    end: End,
    summary: Summary,
}

impl Told {
    fn part(&self) -> Part {
        let Told { dir, end, .. } = self;
        Part {
            run: dir.clone(),
            verdict: end.verdict().word().to_owned(),
            scheduled: end.scheduled,
            buckets: end.buckets,
            latency_ms: end.latency_ms,
            seconds: end.seconds,
            thresholds: end.thresholds.clone(),
        }
    }
}

/// Runs it as often as is asked for.
///
/// # Errors
/// When a run fails other than by its thresholds or the generator's lateness: at once; else at the end.
pub(super) async fn run(branch: &mut Branch<'_>, args: &LoadArgs, dir: &Path) -> Result<Summary> {
    let cx = branch.cx;
    cx.output.brief();
    let mut told: Vec<Told> = Vec::new();
    let mut stopped = None;
    for n in 1..=args.repeat {
        cx.output.note(&format!("run {n} of {}", args.repeat));
        let dir = numbered(dir, n)?;
        let result = once(branch, args, &dir, Telling::Brief).await;
        let goes_on = result.as_ref().map_or_else(is_verdict, |_| true);
        let summary = match &result {
            Ok(summary) => Some(summary.clone()),
            Err(error) => attached::<Summary>(error).cloned(),
        };
        // A run that came to nothing has no end.
        let end = Meta::read(&dir).ok().and_then(|meta| meta.end).filter(|end| !end.interrupted);
        told.extend(summary.zip(end).map(|(summary, end)| Told { dir, end, summary }));
        if !goes_on {
            stopped = result.err();
            break;
        }
    }
    let valid: Vec<&End> = told.iter().map(|run| &run.end).filter(|end| end.invalid.is_none()).collect();
    let spread = Spread { runs: told.iter().map(Told::part).collect(), rows: rows(&valid) };
    if cx.shared.output == Format::Human && !valid.is_empty() {
        cx.output.data(spread.text().trim_end());
    }
    let summary = summary(&told, &spread);
    if let Some(error) = stopped {
        return Err(error).attach(summary);
    }
    let count = |is: fn(&Verdict) -> bool| told.iter().filter(|run| is(&run.end.verdict())).count();
    let (failed, invalid) = (
        count(|verdict| matches!(verdict, Verdict::Failed(_))),
        count(|verdict| matches!(verdict, Verdict::Invalid(_))),
    );
    let of = args.repeat;
    match (failed, invalid) {
        (0, 0) => Ok(summary),
        (0, _) => {
            Err(anyhow!("{invalid} of {of} runs are invalid: the generator could not keep its schedule"))
                .attach(summary)
                .exit(Exit::InvalidRun)
        }
        _ => Err(anyhow!("{failed} of {of} runs did not meet their thresholds"))
            .attach(summary)
            .hint("`cargo xtask explain RUN` shows why the requests of one failed")
            .exit(Exit::Threshold),
    }
}

/// Whether a run ended with a verdict on what it measured: the next one may follow.
fn is_verdict(error: &anyhow::Error) -> bool {
    [Exit::Threshold, Exit::InvalidRun].contains(&exit_of(error))
}

/// The folder of the `n`th run: beside that of the whole, with its number behind.
pub(crate) fn numbered(dir: &Path, n: u32) -> Result<PathBuf> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let dir = dir.with_file_name(format!("{name}-{n:03}"));
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

/// What all came to: sums of what is counted, and of what is measured the median.
fn summary(told: &[Told], spread: &Spread) -> Summary {
    let mut summary = Summary::new();
    if let Some(first) = told.first() {
        let same = ["cluster", "context", "entry", "host", "plan", "without"];
        let same =
            same.into_iter().filter_map(|name| Some((name.to_owned(), first.summary.get(name)?.clone())));
        summary.extend(same);
    }
    let buckets = told.iter().fold(Buckets::default(), |sum, run| sum + run.end.buckets);
    let failures = told.iter().filter_map(|run| run.summary.get("failures")?.as_array()).flatten();
    let latency: Summary = spread
        .rows
        .iter()
        .filter(|row| row.unit == "ms")
        .map(|row| (row.name.clone(), json!(row.median)))
        .collect();
    // The worst of them is what all come to.
    let verdict = ["failed", "invalid", "passed"]
        .into_iter()
        .find(|word| told.iter().any(|run| run.end.verdict().word() == *word));
    let fields = [
        ("verdict", json!(verdict)),
        ("scheduled", json!(told.iter().map(|run| run.end.scheduled).sum::<u64>())),
        ("buckets", json!(buckets)),
        ("latency_ms", Value::Object(latency)),
        ("failures", failures.cloned().collect()),
        ("repeat", json!(spread)),
    ];
    summary.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
    summary
}
